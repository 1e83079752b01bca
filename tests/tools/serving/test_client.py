"""The client against a real local server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.fixtures.tables import table
from tunesmith.tools.serving import client
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse

KEY = "k-123"


class Stub:
    """An OpenAI-compatible endpoint: the last message says how it should behave."""

    def __init__(self, together: int = 0) -> None:
        self.together, self.all_there = together, asyncio.Event()
        """How many requests have to be in flight at once before the first is answered."""
        self.tries: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.now = self.most = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        body = await request.json()
        self.bodies.append(body)
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now >= self.together:
            self.all_there.set()
        await self.all_there.wait()
        try:
            return await self.behave(request, str(body["messages"][-1]["content"]))
        finally:
            self.now -= 1

    async def behave(self, request: web.Request, text: str) -> web.StreamResponse:
        self.tries[text] += 1
        match text.split():
            case ["fail", status, times] if self.tries[text] <= int(times):
                return web.json_response({"error": {"message": f"told {status}"}}, status=int(status))
            case ["reset", times] if self.tries[text] <= int(times):
                assert request.transport is not None
                request.transport.close()
            case ["garbage"]:
                return web.Response(text="<html>")
            case ["empty"]:
                return web.json_response({"choices": []})
            case ["wait", seconds]:
                await asyncio.sleep(float(seconds))
        return web.json_response(answer(text))


def answer(text: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = {"content": None, "tool_calls": [call]} if text == "tool" else {"content": f"re: {text}"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


@asynccontextmanager
async def served(stub: Stub) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", stub.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def ask(
    *texts: str, concurrency: int = 8, key: str = KEY, timeout_s: float = 120, together: int = 0
) -> tuple[Stub, dict[str, ChatResponse]]:
    stub, found = Stub(together), {}

    async def go() -> None:
        async with served(stub) as url, ChatClient(url, key, timeout_s=timeout_s) as chat:
            requests = (ChatRequest(text, "base", [{"role": "user", "content": text}], max_tokens=8) for text in texts)
            await chat.complete_many(requests, concurrency=concurrency, on_result=lambda r: found.update({r.id: r}))

    asyncio.run(go())
    return stub, found


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_BACKOFF_S", 0.01)


def test_every_request_is_answered_under_its_own_id() -> None:
    _, found = ask(*(f"q{number}" for number in range(200)), concurrency=64)
    assert {r.id: r.text for r in found.values()} == {f"q{n}": f"re: q{n}" for n in range(200)}
    assert (found["q7"].prompt_tokens, found["q7"].completion_tokens, found["q7"].finish_reason) == (7, 3, "stop")


def test_no_more_than_the_wished_number_are_in_flight_and_no_fewer() -> None:
    stub, _ = ask(*(f"wait 0.0{n % 5 + 1}" for n in range(60)), concurrency=16, together=16)
    assert stub.most == 16


@pytest.mark.heavy
def test_results_arrive_as_they_are_ready_not_at_the_end() -> None:
    arrivals: list[str] = []

    async def go() -> None:
        async with served(Stub()) as url, ChatClient(url, KEY) as chat:
            requests = [ChatRequest(t, "base", [{"role": "user", "content": t}], 8) for t in ("wait 0.5", "a", "b")]
            await chat.complete_many(requests, concurrency=3, on_result=lambda r: arrivals.append(r.id))

    asyncio.run(go())
    assert arrivals[-1] == "wait 0.5"


@table("fault", ["fail 429 2", "fail 503 2", "reset 2"])
def test_a_passing_fault_is_tried_again(fault: str) -> None:
    stub, found = ask(fault)
    assert found[fault].error is None and found[fault].text == f"re: {fault}" and stub.tries[fault] == 3


@table(
    ("text", "told"),
    [("fail 500 99", "HTTP 500: told 500"), ("reset 99", "Disconnected"), ("garbage", "Error"), ("empty", "choice")],
)
def test_a_lasting_fault_is_an_answer_with_an_error_and_spares_the_others(text: str, told: str) -> None:
    _, found = ask("before", text, "after")
    assert told in str(found[text].error) and found[text].text == ""
    assert found["before"].error is None and found["after"].error is None


def test_a_refused_request_is_not_repeated() -> None:
    stub, found = ask("fail 400 99")
    assert found["fail 400 99"].error == "HTTP 400: told 400" and stub.tries["fail 400 99"] == 1


def test_a_wrong_key_is_told() -> None:
    _, found = ask("q", key="wrong")
    assert str(found["q"].error).startswith("HTTP 401")


def test_a_server_that_never_answers_ends_in_an_error() -> None:
    stub, found = ask("wait 3000", timeout_s=0.2)
    assert found["wait 3000"].error == "no answer within 0.2 s"
    assert stub.tries["wait 3000"] == 1  # asking again would only add to the load


def test_a_server_that_is_not_there_ends_in_an_error() -> None:
    async def go() -> ChatResponse:
        async with ChatClient("http://127.0.0.1:9", KEY) as chat:
            return await chat.complete(ChatRequest("q", "base", [], 8))

    assert asyncio.run(go()).error


def test_a_tool_call_comes_back_as_data() -> None:
    _, found = ask("tool")
    assert found["tool"].text == "" and found["tool"].tool_calls[0]["function"]["name"] == "look"


def test_the_body_holds_what_was_asked_and_nothing_that_was_not() -> None:
    plain = ChatRequest("q", "base", [], 8).body()
    assert plain == {"model": "base", "messages": [], "max_tokens": 8, "temperature": 0.0}
    full = ChatRequest("q", "base", [], 8, seed=0, tools=[{"type": "function"}], extra={"logprobs": True}).body()
    assert full == {**plain, "seed": 0, "tools": [{"type": "function"}], "logprobs": True}


def test_a_fault_of_the_caller_ends_everything_and_is_raised() -> None:
    async def go() -> None:
        async with served(Stub()) as url, ChatClient(url, KEY) as chat:
            requests = [ChatRequest(str(n), "base", [{"role": "user", "content": "q"}], 8) for n in range(50)]
            await chat.complete_many(requests, concurrency=4, on_result=lambda r: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(go())


def test_a_request_that_cannot_be_made_is_named_as_itself() -> None:
    def requests() -> Iterator[ChatRequest]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    async def go() -> None:
        async with served(Stub()) as url, ChatClient(url, KEY) as chat:
            await chat.complete_many(requests(), concurrency=4, on_result=print)

    with pytest.raises(OSError, match="No space left"):
        asyncio.run(go())
