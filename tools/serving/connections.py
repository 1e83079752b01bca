"""The connections over which many requests go to one server: no redirect is followed, this machine is reached through
no proxy, and a server of ours is known as ours before anything is sent to it.

Over aiohttp, because one httpx client slows down badly above 32 connections. One request at a time to a server of ours
goes through `local_http`, the driver's through `driver_http`; nothing else here opens a connection, and a test says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from tunesmith.tools.serving.addresses import Address, visible_address
from tunesmith.tools.serving.listeners import Guard, Listener, SendRefused
from tunesmith.tools.serving.traffic import ContactLog, Traffic

_UNNAMED = "an address that it did not name"


class Connections:
    """A pool of connections to one server; use it as an async context manager."""

    def __init__(
        self,
        address: Address,
        key: str,
        *,
        timeout_s: float,
        listener: Listener | None = None,
        recorder: ContactLog | None = None,
    ) -> None:
        """`listener`: the server of ours that is behind the address; None where it is the user's own."""
        self.address, self.traffic = address, Traffic()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout_s, self._recorder = timeout_s, recorder
        self._guard = Guard(address, listener, has_key=bool(key))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        proxy = self.address.proxy
        if self._recorder:
            await asyncio.to_thread(self._recorder.opened)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            connector=_Connector(self._guard),
            proxy=proxy,
            trust_env=False,  # it would read passwords for the host from ~/.netrc, too
            cookie_jar=aiohttp.DummyCookieJar(),  # nothing that one answer sets goes out with the next request
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self._recorder:
            await asyncio.to_thread(self._recorder.closed, self.traffic)

    async def post(self, path: str, body: Mapping[str, object]) -> tuple[int, object]:
        """The status and the JSON of an answer.

        Raises SendRefused, aiohttp.ClientError, TimeoutError, and ValueError for an answer that is no JSON.
        """
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        async with self._open.post(self._url(path), data=data, headers=headers, allow_redirects=False) as answer:
            await self._count(answer, len(data))
            return answer.status, await answer.json(content_type=None)

    @property
    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use `async with Connections(...)`"
        return self._session

    def _url(self, path: str) -> str:
        return f"{self.address.url}{path}"

    async def _count(self, answer: aiohttp.ClientResponse, sent_bytes: int) -> None:
        self.traffic.requests += 1
        self.traffic.sent_bytes += sent_bytes
        self.traffic.received_bytes += len(await answer.read())
        refuse_redirect(self.address, answer.status, answer.headers.get("Location", ""))


class _Connector(aiohttp.TCPConnector):
    """Opens a connection between the two questions of a guard."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(limit=0)  # the caller bounds what is in flight; aiohttp would stop at 100
        self._guard = guard

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        await self._guard.before_async()
        # private: no public hook knows the socket before the request
        protocol = await super()._create_connection(req, traces, timeout)
        try:
            transport = protocol.transport
            await self._guard.after_async(transport.get_extra_info("socket") if transport else None)
        except BaseException:  # cancelled, too: nobody else has it yet to close it
            protocol.close()
            raise
        return protocol


def refuse_redirect(address: Address, status: int, location: str) -> None:
    """Raises SendRefused for an answer that sends the request elsewhere: what it holds is meant for one host."""
    if 300 <= status < 400:
        raise SendRefused(
            f"{address.place} answered {status} and wanted the request to go to "
            f"{visible_address(location) or _UNNAMED}; it was not sent there: where that is right, "
            "name that address itself"
        )
