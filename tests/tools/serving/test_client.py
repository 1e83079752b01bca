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
from tunesmith.tools.serving.concurrency import Throttle, read_queue

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
async def served(stub: Stub, metrics: Any = None) -> AsyncIterator[str]:
    app = web.Application()
    if metrics:
        app.router.add_get("/metrics", metrics)
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


METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 12.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
"""


def test_the_queue_is_read_from_vllms_metrics_over_all_engines() -> None:
    assert read_queue(METRICS) == (16, 3)
    assert read_queue("python_info 1.0") is None and read_queue("") is None


def test_the_limit_shrinks_only_to_what_a_long_queue_leaves_and_grows_back_to_the_ceiling() -> None:
    throttle = Throttle(128)
    throttle.heed(running=20, waiting=108)
    assert throttle.limit == 128, "one look at a burst is no queue yet"
    throttle.heed(running=40, waiting=88)
    assert throttle.limit == 50
    throttle.heed(running=48, waiting=2)
    assert throttle.limit == 50, "a short queue keeps the server busy"
    for _ in range(20):
        throttle.heed(running=64, waiting=0)
    assert throttle.limit == 128


class Queueing(Stub):
    """A server that works on 8 requests at once, lets the rest wait, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = asyncio.Semaphore(8)
        self.running = self.late = 0

    async def behave(self, request: web.Request, text: str) -> web.StreamResponse:
        async with self.slots:
            self.running += 1
            await asyncio.sleep(0.1)
            self.running -= 1
        if int(text) >= 200:
            self.late = max(self.late, self.now)
        return web.json_response(answer(text))

    async def metrics(self, request: web.Request) -> web.Response:
        waiting = self.now - self.running
        return web.Response(text=f"vllm:num_requests_running {self.running}.0\nvllm:num_requests_waiting {waiting}.0\n")


@pytest.mark.heavy
def test_requests_in_flight_follow_the_servers_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.tools.serving.concurrency.POLL_S", 0.05)
    stub = Queueing()

    async def go() -> None:
        async with served(stub, metrics=stub.metrics) as url, ChatClient(url, KEY) as chat:
            requests = (ChatRequest(str(n), "base", [{"role": "user", "content": str(n)}], 8) for n in range(280))
            await chat.complete_many(requests, concurrency=100, on_result=lambda r: None)

    asyncio.run(go())
    assert stub.most == 100 and len(stub.tries) == 0
    assert 8 < stub.late <= 24, "what is in flight is what the server works on, and a short queue"
