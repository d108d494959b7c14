"""What is sent to `/chat/completions`, and what is read out of its answers: no more of them than is used here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

_BEGIN = 60  # bytes of what is no JSON that a message shows


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. image: a data URL, or "" for text alone. seed: in 0 .. 2**31 - 1, as every server takes it."""

    user: str
    system: str = ""
    image: str = ""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """text: stripped. tokens_in, tokens_out: as the server counts, None where it doesn't. cut: it ends where
    `max_tokens` were used up. refusal: why there is no text, where the server says so."""

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    cut: bool = False
    refusal: str = ""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Usage(msgspec.Struct):
    prompt_tokens: Annotated[int, msgspec.Meta(ge=0)]
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)]


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Unreadable(Exception):
    """An answer that cannot be read. kind: `chat-json` for what is no JSON, `chat-error` for JSON that tells of an
    error, `chat-shape` for other JSON. The text says what came; it may hold anything that the server sent."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def request(ask: Ask, model: str) -> bytes:
    """The body of a request."""
    content: Any = ask.user
    if ask.image:
        content = [{"type": "image_url", "image_url": {"url": ask.image}}, {"type": "text", "text": ask.user}]
    messages = [{"role": "system", "content": ask.system}] if ask.system else []
    body = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": content}],
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "max_tokens": ask.max_tokens,
    }
    if ask.seed is not None:
        body["seed"] = ask.seed
    return msgspec.json.encode(body)


def answer(data: bytes) -> Answer:
    """An answer's text and what it took. Raises Unreadable."""
    completion = _decoded(data, _Completion)
    choice = completion.choices[0]
    text = (choice.message.content or "").strip()
    cut = choice.finish_reason == "length"
    refusal = choice.message.refusal or choice.finish_reason or ""
    try:
        usage = msgspec.json.decode(completion.usage, type=_Usage)
    except msgspec.DecodeError:
        return Answer(text, cut=cut, refusal=refusal)
    return Answer(text, usage.prompt_tokens, usage.completion_tokens, cut, refusal)


def models(data: bytes) -> list[str]:
    """The names of the models that `/models` lists. Raises Unreadable."""
    return [model.id for model in _decoded(data, _Models).data]


def complaint(data: bytes) -> tuple[str, str]:
    """What the body of a failure says: the message for people, and the code for programs; "" for what it lacks."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, str):
        return error, ""
    if not isinstance(error, dict):
        return "", ""
    said = error.get("message") or error.get("detail") or ""
    return said if isinstance(said, str) else str(said), str(error.get("code") or error.get("type") or "")


def _decoded(data: bytes, type: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        if said := complaint(data)[0]:
            raise Unreadable("chat-error", said) from None
        raise Unreadable("chat-shape", f"not as the protocol has it: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        began = data[:_BEGIN].decode("utf-8", "replace")
        raise Unreadable("chat-json", f"not JSON: it begins {began!r}" if began else "empty") from None
