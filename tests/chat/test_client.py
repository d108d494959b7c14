"""The client against a server that misbehaves: what it answers, what it tries again, what ends a run, what it keeps."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from clipkit.chat.client import BudgetSpent, Client, collected
from clipkit.chat.protocol import Answer, Ask
from clipkit.chat.settings import Settings
from clipkit.errors import ClipkitError, RecordError, UsageError
from tests.chat.server import USAGE, Server, completion, serving

KEY = "sk-proj-0123456789abcdefABCDEF-not-for-anyone"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as some:
        yield some


class Chat:
    """A client with short waits."""

    def __init__(self, address: str, *, key: str | None = None, **settings: Any) -> None:
        quick = {"timeout": 10.0, "backoff": 0.01, "server_model": "tiny", "retries": 2}
        self.client = Client(Settings.of({**quick, "server": address, **settings}), key)

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "chat" and thread.is_alive()]

    def ask(self, *texts: str) -> list[Answer | RecordError]:
        """The answers to one record's texts."""
        return self.client.ask([Ask(text) for text in texts]).result(30)

    def text(self, text: str) -> str:
        (answer,) = self.ask(text)
        assert isinstance(answer, Answer), answer
        return answer.text

    def refusal(self, text: str = "a") -> RecordError:
        (error,) = self.ask(text)
        assert isinstance(error, RecordError), error
        return error

    def end(self, text: str = "a") -> ClipkitError:
        """What ends the run."""
        with pytest.raises(ClipkitError) as caught:
            self.ask(text)
        assert not isinstance(caught.value, RecordError)
        return caught.value


def chat(server: Server, name: str, **settings: Any) -> Chat:
    return Chat(server.address(name), **settings)


# What is asked, what is answered


def test_a_request_is_as_the_protocol_has_it(server: Server) -> None:
    with chat(server, "fine") as some:
        ask = Ask("what is it?", "be brief", "data:image/jpeg;base64,AA==", 0.7, 0.9, 33, 5)
        (answer,) = some.client.ask([ask]).result(30)
        some.text("plain")
    assert answer == Answer("<what is it?>", 7, 3, cut=False, refusal="stop")
    first, second = server.requests
    assert first.method == "POST" and first.path == "/fine/chat/completions"
    assert first.fields["content-type"] == "application/json"
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AA=="}}
    assert first.body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [picture, {"type": "text", "text": "what is it?"}]},
        ],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 33,
        "seed": 5,
    }
    assert second.body["messages"] == [{"role": "user", "content": "plain"}] and "seed" not in second.body
    assert "authorization" not in first.fields


def test_a_large_picture_is_sent_whole(server: Server) -> None:
    image = "data:image/jpeg;base64," + "A" * (3 << 20)
    with chat(server, "status_once/500") as some:
        assert isinstance(some.client.ask([Ask("a", image=image)]).result(30)[0], Answer)
    for request in server.requests:
        assert request.body["messages"][0]["content"][0]["image_url"]["url"] == image


def test_answers_come_in_the_order_of_the_questions(server: Server) -> None:
    texts = [str(number) for number in range(8)]
    with chat(server, "slower_first", concurrency=8) as some:
        assert [answer.text for answer in some.ask(*texts)] == [f"<{text}>" for text in texts]
        assert some.client.facts["requests"] == 8


def test_so_many_requests_at_once_and_no_more(server: Server) -> None:
    with chat(server, "slow", concurrency=3) as some:
        futures = [some.client.ask([Ask(f"{n} {m}") for m in range(2)]) for n in range(6)]
        assert all(len(future.result(30)) == 2 for future in futures)
    assert server.most == 3


def test_what_a_record_failed_is_its_own(server: Server) -> None:
    with chat(server, "odd_fails") as some:
        first, second, third = some.ask("0", "1", "2")
    assert isinstance(first, Answer) and isinstance(third, Answer)
    assert isinstance(second, RecordError) and second.kind == "chat-status-400"
    assert second.message == f"{server.address('odd_fails')}: status 400: odd"


def test_tokens_are_counted_and_priced(server: Server) -> None:
    with chat(server, "fine", price=[0.5, 20.5]) as some:
        some.ask("a", "b", "c")
        client, tally = some.client, some.client.tally
    assert (tally.tokens_in, tally.tokens_out, tally.spent) == (21, 9, 30)
    assert tally.cost == pytest.approx((21 * 0.5 + 9 * 20.5) / 1e6)
    assert client.facts["cost"] == tally.cost
    assert client.notices == ["tiny: 21 tokens in, 9 out, which cost 0.000195"]


def test_a_server_that_doesnt_count_is_told_of(server: Server) -> None:
    with chat(server, "uncounted") as some:
        assert some.ask("a") == [Answer("a dog", refusal="stop")]
        assert some.client.facts["uncounted"] == 1 and "1 answers" in some.client.notices[0]


def test_answers_that_were_cut_are_counted(server: Server) -> None:
    with chat(server, "too_long") as some:
        assert some.ask("a")[0].cut
        assert "cut" in some.client.notices[1]


# What is tried again


@pytest.mark.parametrize("name", ["status_once/500", "status_once/503", "status_once/408", "status_once/429"])
def test_a_failure_that_may_pass_is_tried_again(server: Server, name: str) -> None:
    with chat(server, name) as some:
        assert some.text("a") == "<a>"
        assert (some.client.tally.requests, some.client.tally.repeated) == (2, 1)


@pytest.mark.parametrize("name", ["hang_up_once", "cut_once", "cut_chunked_once"])
def test_half_an_answer_is_asked_for_again(server: Server, name: str) -> None:
    with chat(server, name) as some:
        assert some.text("a") == "<a>"
        assert some.client.tally.repeated == 1


def test_an_answer_that_doesnt_come_is_asked_for_again(server: Server) -> None:
    with chat(server, "hang_once", timeout=0.2) as some:
        assert some.text("a") == "<a>"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("status/500", "chat-status-500"),
        ("status/429", "chat-status-429"),
        ("hang", "chat-timeout"),
        ("hang_up", "chat-connect"),
        ("cut", "chat-truncated"),
        ("no_http", "chat-http"),
    ],
)
def test_so_many_tries_and_no_more(server: Server, name: str, kind: str) -> None:
    with chat(server, name, timeout=0.3) as some:
        error = some.refusal()
    assert error.kind == kind and error.message.startswith(server.address(name))
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [400, 413, 422, 501])
def test_what_will_not_pass_is_tried_once(server: Server, code: int) -> None:
    with chat(server, f"status/{code}") as some:
        assert some.refusal().kind == f"chat-status-{code}"
    assert len(server.requests) == 1


def test_while_a_server_asks_for_a_pause_nothing_is_sent(server: Server) -> None:
    with chat(server, "busy/1", concurrency=2) as some:
        assert [answer.text for answer in some.ask("a", "b", "c")] == ["<a>", "<b>", "<c>"]
    first = server.requests[0].at
    early = [request for request in server.requests if request.at < first + 0.9]
    assert {request.asked for request in early} == {"a", "b"} and len(early) == 2


def test_a_long_pause_ends_the_run(server: Server) -> None:
    with chat(server, "busy/3600") as some:
        error = some.end()
    assert "try again in 3,600 s" in error.message and "--resume" in str(error.hint)


# What cannot be read


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("", "chat-json"),
        ("<html>busy</html>", "chat-json"),
        ('{"choices": [{"message": {"content": "a d', "chat-json"),
        ('{"choices": [{"message": {"content": "\\ud800"}}]}', "chat-json"),
        ('{"choices":' * 100_000, "chat-shape"),
        ("[" * 1000, "chat-shape"),
        ('{"choices": NaN}', "chat-json"),
        ('{"error": {"message": "upstream", "code": 502}}', "chat-error"),
        ("[]", "chat-shape"),
        ("{}", "chat-shape"),
        ('{"choices": []}', "chat-shape"),
        ('{"choices": [{}]}', "chat-shape"),
        ('{"choices": [{"message": "a dog"}]}', "chat-shape"),
        ('{"choices": [{"message": {"content": 5}}]}', "chat-shape"),
        ('{"choices": [{"message": {"content": [{"type": "text", "text": "a"}]}}]}', "chat-shape"),
        ('{"choices": [{"message": {"content": null}}]}', "empty-answer"),
        ('{"choices": [{"message": {"content": " \\n"}}]}', "empty-answer"),
    ],
)
def test_what_is_no_answer_is_an_error(server: Server, body: str, kind: str) -> None:
    with chat(server, "body") as some:
        error = some.refusal(body)
    assert error.kind == kind and len(error.message) < 400 and error.message.isprintable()
    assert len(server.requests) == (3 if kind in ("chat-json", "chat-error") else 1)


def test_bytes_that_are_no_utf8_are_no_answer(server: Server) -> None:
    with chat(server, "latin_1") as some:
        assert some.refusal().kind == "chat-json"


@pytest.mark.parametrize("usage", [[], {}, {"prompt_tokens": -5, "completion_tokens": 1}, "7", {"prompt_tokens": 1.5}])
def test_a_count_that_is_none_is_not_believed(server: Server, usage: Any) -> None:
    with chat(server, "body") as some:
        assert some.text(json.dumps(completion("a dog", usage))) == "a dog"
        assert some.client.tally.spent == 0 and some.client.tally.uncounted == 1


@pytest.mark.parametrize("name", ["huge", "bomb"])
def test_an_answer_has_a_limit(server: Server, name: str) -> None:
    with chat(server, name, max_bytes=100_000) as some:
        error = some.refusal()
    assert error.kind == ("chat-too-large" if name == "huge" else "chat-json")
    assert name == "bomb" or "100,000" in error.message


def test_a_refusal_is_no_caption_but_costs(server: Server) -> None:
    with chat(server, "refuses") as some:
        error = some.refusal()
        assert error.kind == "empty-answer" and "I cannot help" in error.message
        assert some.client.tally.spent == USAGE["total_tokens"]


# What ends a run


def test_a_key_that_is_refused_ends_the_run(server: Server) -> None:
    with chat(server, "status/401", key=KEY) as some:
        error = some.end()
        assert error.message == f"{server.address('status/401')}: the server refused the key (status 401)"
        assert "CLIPKIT_API_KEY" in str(error.hint)
        assert some.end("b") is error  # nothing else is sent
    assert len(server.requests) == 1


def test_a_key_that_is_missing_is_asked_for(server: Server) -> None:
    with chat(server, "status/403") as some:
        assert "wants a key" in some.end().message


@pytest.mark.parametrize("name", ["status/402", "quota"])
def test_what_is_not_paid_for_ends_the_run(server: Server, name: str) -> None:
    with chat(server, name) as some:
        assert "used up" in str(some.end().hint)
    assert len(server.requests) == 1


def test_an_unknown_model_ends_the_run_and_those_there_are_are_told(server: Server) -> None:
    with chat(server, "no_such_model", server_model="large") as some:
        error = some.end()
    assert isinstance(error, UsageError)
    assert error.message.endswith("there is no model 'large'") and error.hint == "it has: tiny"


def test_where_all_is_refused_the_run_ends(server: Server) -> None:
    with chat(server, "status/400", concurrency=1) as some:
        assert {some.refusal(str(n)).kind for n in range(31)} == {"chat-status-400"}
        assert "the first 32 requests were refused: status 400: it is" in some.end().message


def test_where_some_is_answered_refusals_are_the_records(server: Server) -> None:
    with chat(server, "odd_fails") as some:
        some.text("0")
        answers = some.ask(*(f"{n}1" for n in range(40)))
    assert {getattr(answer, "kind", "") for answer in answers} == {"chat-status-400"}


def test_an_address_that_is_none_ends_the_run(server: Server) -> None:
    with chat(server, "no_page") as some:
        error = some.end()
    assert "status 404: Not Found" in error.message and "/v1" in str(error.hint)


def test_nothing_at_the_address_ends_the_run_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with Chat(address, retries=1000, backoff=30.0) as some:
        assert "refused" in some.end().message
    with pytest.raises(ClipkitError, match="refused"):
        Chat(address, server_model="")


def test_a_server_that_goes_away_for_a_moment_is_waited_for() -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(serving())
        with chat(other, "fine", retries=8, backoff=0.05) as some:
            assert some.text("a") == "<a>"
            stack.close()
            coming = some.client.ask([Ask("b")])
            time.sleep(0.1)
            with serving(other.port):
                assert coming.result(30)[0].text == "<b>"
            assert some.client.tally.repeated


def test_a_server_that_goes_away_for_good_ends_the_run() -> None:
    with serving() as other:
        some = chat(other, "fine")
        assert some.text("a") == "<a>"
    with some:
        assert "refused" in some.end("b").message
        assert some.client.tally.repeated == 2


# Which model


def test_the_only_model_is_taken(server: Server) -> None:
    with chat(server, "fine", server_model="") as some:
        assert some.client.model == "tiny" and some.text("a") == "<a>"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fine/a,b", "has 2 models: name one"),
        ("fine/none", "a list of no models"),
        ("no_list", "status 404"),
        ("wrong_list", "not as the protocol has it"),
        ("status/401", "wants a key"),
        ("status/400", "status 400"),
        ("hang_up", "broke off"),
    ],
)
def test_without_one_model_one_must_be_named(server: Server, name: str, said: str) -> None:
    with pytest.raises(ClipkitError, match=said) as caught:
        chat(server, name, server_model="")
    assert not isinstance(caught.value, RecordError)
    assert not [thread for thread in threading.enumerate() if thread.name == "chat"]


def test_a_named_model_needs_no_list(server: Server) -> None:
    with chat(server, "no_list") as some:
        assert some.text("a") == "<a>"


# The key


def test_the_key_goes_to_the_server(server: Server) -> None:
    with chat(server, "fine", key=KEY) as some:
        some.text("a")
    assert server.requests[0].fields["authorization"] == f"Bearer {KEY}"


def test_the_key_goes_nowhere_else(server: Server) -> None:
    with serving() as other, chat(server, f"redirect/{other.port}", key=KEY) as some:
        error = some.end()
        assert not other.requests
    assert f"redirects to http://127.0.0.1:{other.port}/" in error.message and "--server" in str(error.hint)


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with chat(server, "fine", key=KEY) as some:
            assert some.text("a") == "<a>"
        assert not proxy.requests


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 413, 429, 500])
def test_the_key_is_never_said_again(server: Server, status: int) -> None:
    with chat(server, f"echo/{status}", key=KEY, retries=0) as some:
        try:
            error: Any = some.refusal()
        except ClipkitError as caught:
            error = caught
        said = f"{error} {error.hint} {error!r} {error.__context__!r} {some.client.facts} {some.client.notices}"
    assert not any(KEY[at : at + 8] in said for at in range(len(KEY) - 8))


# The budget


def test_a_spent_budget_begins_no_record(server: Server) -> None:
    with chat(server, "fine", max_tokens_total=25, concurrency=1, price=[1.0, 2.0]) as some:
        assert [some.text(str(n)) for n in range(3)] == ["<0>", "<1>", "<2>"]
        for _ in range(2):
            error = some.end("3")
            assert isinstance(error, BudgetSpent)
        assert error.message == "the budget of 25 tokens is spent: 21 tokens in, 9 out, which cost 0.000039"
        assert "--resume" in str(error.hint)
    assert server.asked == ["0", "1", "2"]


def test_a_record_that_was_begun_is_finished(server: Server) -> None:
    with chat(server, "fine", max_tokens_total=15, concurrency=1) as some:
        first, second = some.client.ask([Ask(t) for t in "abcd"]), some.client.ask([Ask(t) for t in "efgh"])
        assert all(isinstance(answer, Answer) for answer in first.result(30))
        with pytest.raises(BudgetSpent):
            second.result(30)
    assert server.asked == list("abcd")


def test_what_is_under_way_when_a_budget_ends_is_finished(server: Server) -> None:
    with chat(server, "slow", max_tokens_total=5, concurrency=4) as some:
        futures = [some.client.ask([Ask(str(n))]) for n in range(8)]
        assert all(isinstance(future.result(30)[0], Answer) for future in futures[:4])
        for future in futures[4:]:
            with pytest.raises(BudgetSpent):
                future.result(30)
    assert server.asked == ["0", "1", "2", "3"]


def test_a_budget_that_cannot_be_kept_ends_the_run(server: Server) -> None:
    with chat(server, "uncounted", max_tokens_total=1000) as some:
        assert "does not say how many tokens" in some.end().message


# Stopping


def test_stop_wakes_who_waits(server: Server) -> None:
    with chat(server, "hang", concurrency=2) as some:
        futures = [some.client.ask([Ask(str(n))]) for n in range(5)]
        while len(server.requests) < 2:
            time.sleep(0.01)
        woken: list[str] = []

        def wait() -> None:
            for future in [*futures, some.client.ask([Ask("late")])]:
                try:
                    collected(future)
                except RecordError as error:
                    woken.append(error.kind)

        waiting = threading.Thread(target=wait)
        waiting.start()
        some.client.stop()
        waiting.join(10)
        assert woken == ["chat-stopped"] * 6
    assert len(server.requests) == 2


def test_stop_ends_a_pause(server: Server) -> None:
    with chat(server, "busy/60") as some:
        future = some.client.ask([Ask("a")])
        while not server.requests:
            time.sleep(0.01)
        some.client.stop()
        with pytest.raises(RecordError):
            collected(future)
