"""Whatever a server sends is an answer or an error, never a fault."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clipkit.chat.protocol import Answer, Ask, Unreadable, answer, complaint, models, request
from tests.chat.server import completion

NAMES = st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens", "error", "data", "id", "refusal"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_nothing_else_is_raised(data: bytes) -> None:
    for read in (answer, models):
        try:
            read(data)
        except Unreadable as error:
            assert error.kind in ("chat-json", "chat-error", "chat-shape")
    assert all(isinstance(said, str) for said in complaint(data))


@given(st.text(), st.integers(0, 10**9), st.integers(0, 10**9), VALUES)
def test_an_answer_is_read_whatever_stands_beside_it(text: str, sent: int, said: int, other: Any) -> None:
    usage = {"prompt_tokens": sent, "completion_tokens": said, "prompt_tokens_details": other}
    body = completion(text, usage, ended="length") | {"system_fingerprint": other}
    assert answer(json.dumps(body).encode()) == Answer(text.strip(), sent, said, cut=True, refusal="length")


@given(st.text(), st.text(), st.floats(0, 2), st.integers(0, 2**31 - 1))
def test_a_request_says_what_is_asked(user: str, system: str, temperature: float, seed: int) -> None:
    body = json.loads(request(Ask(user, system, temperature=temperature, seed=seed), "tiny"))
    assert [message["content"] for message in body["messages"]] == [*([system] if system else []), user]
    assert (body["temperature"], body["seed"]) == (temperature, seed)


def test_a_complaint_is_found_where_servers_put_it() -> None:
    assert complaint(b'{"error": {"message": "no", "code": "insufficient_quota"}}') == ("no", "insufficient_quota")
    assert complaint(b'{"error": {"message": "no", "type": "x"}}') == ("no", "x")
    assert complaint(b'{"error": "model not found"}') == ("model not found", "")
    assert complaint(b'{"object": "error", "message": "no", "code": 40303}') == ("no", "40303")
    assert complaint(b'{"detail": "Not Found"}') == ("Not Found", "")
    assert complaint(b"<html>") == ("", "")
