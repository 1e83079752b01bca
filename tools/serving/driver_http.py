"""The driver's connections, which the openai library asks through httpx: as `connections`, and no more is said than the
request needs.

The library would follow redirects, take the user's proxies for this machine too, and tell system, versions and the
organization of an OpenAI account that the environment happens to name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2

from tunesmith.tools.serving.addresses import Address
from tunesmith.tools.serving.connections import refuse_redirect
from tunesmith.tools.serving.listeners import Guard, Listener, SendRefused
from tunesmith.tools.serving.traffic import Recorder, Traffic

_HEADERS = frozenset(
    {"host", "authorization", "content-type", "content-length", "transfer-encoding", "accept", "connection"}
)
_CONNECTING, _CONNECTED = "connection.connect_tcp.started", "connection.connect_tcp.complete"


def driver_client(
    address: Address, *, listener: Listener | None, recorder: Recorder | None, timeout_s: float
) -> httpx2.Client:
    """A client for one host. Raises BadInput for a proxy that is not spoken."""
    transport = _Transport(address, listener, recorder)
    return httpx2.Client(transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False)


def async_driver_client(
    address: Address, *, listener: Listener | None, recorder: Recorder | None, timeout_s: float
) -> httpx2.AsyncClient:
    """The same for an event loop."""
    transport = _AsyncTransport(address, listener, recorder)
    return httpx2.AsyncClient(transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False)


class _Checks:
    """What both kinds of transport know of their host."""

    def __init__(self, address: Address, listener: Listener | None, recorder: Recorder | None) -> None:
        self.address, self.traffic = address, Traffic()
        self.guard, self.recorder = Guard(address, listener), recorder
        self.known_ports = set[int]()
        """Our own ports of connections that were looked at."""

    def prepare(self, request: httpx2.Request) -> None:
        """Strip a request, and count it."""
        for name in [name for name in request.headers if name.lower() not in _HEADERS]:
            del request.headers[name]
        self.traffic.requests += 1
        self.traffic.sent_bytes += int(request.headers.get("content-length", 0))

    @property
    def is_first(self) -> bool:
        return self.traffic.requests == 1

    def accept(self, response: httpx2.Response) -> None:
        """Raises SendRefused for an answer that leads elsewhere, or came over a connection that was never looked at."""
        refuse_redirect(self.address, response.status_code, response.headers.get("location", ""))
        stream = response.extensions.get("network_stream")
        local = stream.get_extra_info("client_addr") if stream else None
        if self.address.is_loopback and (not local or local[1] not in self.known_ports):
            raise SendRefused(f"an answer of {self.address.place} came over a connection that was not looked at")


class _Transport(httpx2.BaseTransport):
    def __init__(self, address: Address, listener: Listener | None, recorder: Recorder | None) -> None:
        self._checks = _Checks(address, listener, recorder)
        self._inner = httpx2.HTTPTransport(proxy=address.proxy)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self._checks.prepare(request)
        if self._checks.recorder and self._checks.is_first:
            self._checks.recorder.opened()
        request.extensions = {**request.extensions, "trace": self._trace}
        response = self._inner.handle_request(request)
        try:
            self._checks.accept(response)
        except SendRefused:
            response.close()
            raise
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Counted(response.stream, self._checks.traffic)
        return response

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event == _CONNECTING:
            self._checks.guard.before()
        elif event == _CONNECTED:
            stream = info["return_value"]
            connected = stream.get_extra_info("socket")
            try:
                self._checks.guard.after(connected)
            except BaseException:
                stream.close()
                raise
            self._checks.known_ports.add(int(connected.getsockname()[1]))

    def close(self) -> None:
        self._inner.close()
        if self._checks.recorder and self._checks.traffic.requests:
            self._checks.recorder.closed(self._checks.traffic)


class _AsyncTransport(httpx2.AsyncBaseTransport):
    def __init__(self, address: Address, listener: Listener | None, recorder: Recorder | None) -> None:
        self._checks = _Checks(address, listener, recorder)
        self._inner = httpx2.AsyncHTTPTransport(proxy=address.proxy)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._checks.prepare(request)
        if self._checks.recorder and self._checks.is_first:
            await asyncio.to_thread(self._checks.recorder.opened)
        request.extensions = {**request.extensions, "trace": self._trace}
        response = await self._inner.handle_async_request(request)
        try:
            self._checks.accept(response)
        except SendRefused:
            await response.aclose()
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _AsyncCounted(response.stream, self._checks.traffic)
        return response

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event == _CONNECTING:
            await self._checks.guard.before_async()
        elif event == _CONNECTED:
            stream = info["return_value"]
            connected = stream.get_extra_info("socket")
            try:
                await self._checks.guard.after_async(connected)
            except BaseException:
                await stream.aclose()
                raise
            self._checks.known_ports.add(int(connected.getsockname()[1]))

    async def aclose(self) -> None:
        await self._inner.aclose()
        if self._checks.recorder and self._checks.traffic.requests:
            await asyncio.to_thread(self._checks.recorder.closed, self._checks.traffic)


class _Counted(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, traffic: Traffic) -> None:
        self._stream, self._traffic = stream, traffic

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._traffic.received_bytes += len(chunk)
            yield chunk

    def close(self) -> None:
        self._stream.close()


class _AsyncCounted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, traffic: Traffic) -> None:
        self._stream, self._traffic = stream, traffic

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._traffic.received_bytes += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
