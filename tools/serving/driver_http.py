"""The driver's connections, which the openai library asks through httpx: as `connections`, and no more is said than the
request needs.

The library would follow redirects, take the user's proxies for this machine too, and tell system, versions and the
organization of an OpenAI account that the environment happens to name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from tunesmith.tools.serving.addresses import Address
from tunesmith.tools.serving.connections import refuse_redirect
from tunesmith.tools.serving.listeners import Guard, Listener, SendRefused
from tunesmith.tools.serving.traffic import ContactLog, Traffic

_HEADERS = frozenset(
    {"host", "authorization", "content-type", "content-length", "transfer-encoding", "accept", "connection"}
)
_CONNECTING, _CONNECTED = "connection.connect_tcp.started", "connection.connect_tcp.complete"


def driver_client(
    address: Address, *, listener: Listener | None, has_key: bool, recorder: ContactLog | None, timeout_s: float
) -> httpx2.AsyncClient:
    """A client for one host. Raises BadInput for a proxy that is not spoken."""
    transport = _Transport(address, Guard(address, listener, has_key=has_key), recorder)
    return httpx2.AsyncClient(transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False)


class _Transport(httpx2.AsyncBaseTransport):
    """Strips requests, looks at each connection, and counts what goes and comes."""

    def __init__(self, address: Address, guard: Guard, recorder: ContactLog | None) -> None:
        self._address, self._guard, self._recorder, self._traffic = address, guard, recorder, Traffic()
        self._inner = httpx2.AsyncHTTPTransport(proxy=address.proxy)
        self._known_ports = set[int]()
        """Our own ports of connections that were looked at."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises SendRefused as `_accept` does."""
        for name in [name for name in request.headers if name.lower() not in _HEADERS]:
            del request.headers[name]
        self._traffic.requests += 1
        self._traffic.sent_bytes += int(request.headers.get("content-length", 0))
        if self._recorder and self._traffic.requests == 1:  # a client that asks nothing contacts nobody
            await asyncio.to_thread(self._recorder.opened)
        request.extensions = {**request.extensions, "trace": self._trace}
        response = await self._inner.handle_async_request(request)
        try:
            self._accept(response)
        except SendRefused:
            await response.aclose()
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Counted(response.stream, self._traffic)
        return response

    def _accept(self, response: httpx2.Response) -> None:
        """Raises SendRefused for an answer that leads elsewhere, or came over a connection that was never looked at."""
        refuse_redirect(self._address, response.status_code, response.headers.get("location", ""))
        stream = response.extensions.get("network_stream")
        local = stream.get_extra_info("client_addr") if stream else None
        if self._address.is_loopback and (not local or local[1] not in self._known_ports):
            raise SendRefused(f"an answer of {self._address.place} came over a connection that was not looked at")

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event == _CONNECTING:
            await self._guard.before_async()
        elif event == _CONNECTED:
            stream = info["return_value"]
            connected = stream.get_extra_info("socket")
            try:
                await self._guard.after_async(connected)
            except BaseException:  # cancelled, too: it must not go into the pool
                await stream.aclose()
                raise
            self._known_ports.add(int(connected.getsockname()[1]))

    async def aclose(self) -> None:
        await self._inner.aclose()
        if self._recorder and self._traffic.requests:
            await asyncio.to_thread(self._recorder.closed, self._traffic)


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, traffic: Traffic) -> None:
        self._stream, self._traffic = stream, traffic

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._traffic.received_bytes += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
