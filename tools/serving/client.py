"""Many chat requests to one OpenAI-compatible server at once.

The connections are imported by who asks, as plans need the requests alone. A request that cannot be answered is data,
not an exception: its response carries the error. Not covered: streaming.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from tunesmith.memory.json_values import as_float, as_int, as_list, as_object, picked
from tunesmith.tools.models.chat_template import without_system
from tunesmith.tools.serving.addresses import read_address, refuse_key_in_clear
from tunesmith.tools.serving.listeners import Listener, SendRefused
from tunesmith.tools.serving.traffic import ContactLog
from tunesmith.tools.suites.grading import Response

if TYPE_CHECKING:
    from tunesmith.tools.serving.connections import Connections

_TRIES = 4
_BACKOFF_S = 0.5
"""Doubled each time: 3.5 s in all, past a full queue or a dropped connection; a dead server is told soon."""
_TIMEOUT_S = 600.0
"""A CPU that answers many requests at once takes minutes for a long one."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation to be answered."""

    id: str
    model: str
    messages: Sequence[Mapping[str, object]]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    tools: Sequence[Mapping[str, object]] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the request body, such as response_format, logprobs, top_p or stop."""

    def body(self) -> dict[str, object]:
        """The JSON body of the request."""
        body: dict[str, object] = {
            **picked(self, "model", "messages", "max_tokens", "temperature"),
            **self.extra,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if self.tools:
            body["tools"] = self.tools
        return body


@dataclass(frozen=True, kw_only=True)
class ChatResponse(Response):
    """What came back, as it is graded, with what it took. With an `error`, nothing else did."""

    id: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    steps: Sequence[tuple[str, Mapping[str, float]]] = ()
    """Each token of the answer, with the log probability of what it might have been, where the request asked for
    `top_logprobs`."""
    error: str | None = None


class ChatClient:
    """A pool of connections to one server; use it as an async context manager."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        listener: Listener | None = None,
        allow_plain_http: bool = False,
        timeout_s: float = _TIMEOUT_S,
        takes_system: bool = True,
        section: str = "endpoint",
        recorder: ContactLog | None = None,
    ) -> None:
        """`url` is without `/v1`; where its model's template takes no system message, none is sent.

        `listener`: the server of ours at `url`; None where it is the user's own. `section`: of settings.toml, where
        that names it. Raises BadInput for an address that cannot be used, or not with a key.
        """
        self._address = read_address(url)
        refuse_key_in_clear(self._address, key, allowed=allow_plain_http, section=section)
        self._key, self._listener, self._recorder = key, listener, recorder
        self._timeout_s = timeout_s
        self._takes_system = takes_system
        self._connections: Connections | None = None

    async def __aenter__(self) -> Self:
        from tunesmith.tools.serving.connections import Connections

        self._connections = await Connections(
            self._address, self._key, timeout_s=self._timeout_s, listener=self._listener, recorder=self._recorder
        ).__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._connections is not None:
            await self._connections.__aexit__(*exc)

    def complete_all(
        self, requests: Iterable[ChatRequest], *, concurrency: int, on_result: Callable[[ChatResponse], None]
    ) -> None:
        """`complete_many` where no event loop runs, over connections that are opened for it."""

        async def work() -> None:
            async with self:
                await self.complete_many(requests, concurrency=concurrency, on_result=on_result)

        asyncio.run(work())

    async def complete_many(
        self, requests: Iterable[ChatRequest], *, concurrency: int, on_result: Callable[[ChatResponse], None]
    ) -> None:
        """Send `requests` in order, at most `concurrency` at a time; `on_result` gets each answer as it arrives.

        An exception of `on_result`, or of `requests`, ends everything and is raised here as it is, the first where
        there are several.
        """
        queue = iter(requests)

        async def work() -> None:
            for request in queue:
                on_result(await self.complete(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as faults:  # callers catch an error by its kind, and know of no group
            fault = _first(faults)
            raise fault from fault.__cause__

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Answer one request; connection faults, 429 and 5xx are tried again with growing pauses.

        Not where the answer would be another program's: every new connection is looked at before anything is sent.
        """
        import aiohttp

        if not self._takes_system:
            request = replace(request, messages=without_system(request.messages))
        error = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))
            started = time.perf_counter()
            try:
                status, document = await self._post(request)
            except TimeoutError:
                # Not again: a server too slow for this request is not helped by a second one.
                return ChatResponse(id=request.id, error=f"no answer within {self._timeout_s:g} s")
            except SendRefused as refused:
                return ChatResponse(id=request.id, error=str(refused))
            except (aiohttp.ClientError, ValueError) as fault:  # ValueError: no JSON, such as a proxy's page
                error = f"{type(fault).__name__}: {fault}"
                continue
            if status == 200:
                return _response(request.id, document, (time.perf_counter() - started) * 1000)
            error = f"HTTP {status}: {_message(document)}"
            # Any other 4xx is about the request itself, which would be refused again.
            if status != 429 and status < 500:
                break
        return ChatResponse(id=request.id, error=error)

    async def _post(self, request: ChatRequest) -> tuple[int, object]:
        return await self._open.post("/v1/chat/completions", request.body())

    @property
    def _open(self) -> Connections:
        assert self._connections is not None, "use `async with ChatClient(...)`"
        return self._connections


def _first(fault: BaseException) -> BaseException:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault


def _response(identity: str, document: object, latency_ms: float) -> ChatResponse:
    try:
        answer = as_object(document)
        choice, usage = as_object(as_list(answer["choices"])[0]), as_object(answer.get("usage") or {})
        message, logprobs = as_object(choice["message"]), as_object(choice.get("logprobs") or {})
        finish = choice.get("finish_reason")
        return ChatResponse(
            id=identity,
            text=str(message.get("content") or ""),
            tool_calls=[as_object(call) for call in as_list(message.get("tool_calls") or [])],
            finish_reason=None if finish is None else str(finish),
            prompt_tokens=as_int(usage.get("prompt_tokens") or 0),
            completion_tokens=as_int(usage.get("completion_tokens") or 0),
            latency_ms=latency_ms,
            steps=[
                (
                    str(one["token"]),
                    {str(top["token"]): as_float(top["logprob"]) for top in map(as_object, as_list(tops))},
                )
                for one in map(as_object, as_list(logprobs.get("content") or []))
                if (tops := one.get("top_logprobs"))
            ],
        )
    except (KeyError, IndexError, TypeError):  # whatever else speaks HTTP there
        return ChatResponse(id=identity, error=f"the server answered without a choice: {str(document)[:200]}")


def _message(document: object) -> str:
    error = document.get("error", document) if isinstance(document, dict) else document
    # a server's page of HTML, maybe
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]


def system(content: str) -> dict[str, str]:
    """A system message."""
    return {"role": "system", "content": content}


def user(content: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    """An answer, or the beginning of one that a model goes on with."""
    return {"role": "assistant", "content": content}


def response_format_of(schema: Mapping[str, object], name: str = "answer") -> dict[str, object]:
    """The `response_format` of a request whose answer must fit a JSON Schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": dict(schema)}}
