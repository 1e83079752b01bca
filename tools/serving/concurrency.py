"""How many requests are in flight: as many as keep the server busy, no more than it can start soon.

A server works on so many requests at once and lets the others wait. A short queue keeps it from idling between two
answers; a long one only makes every answer late, and times that are measured with it mean nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

POLL_S = 0.25
_LEAST_RESERVE = 8
_RESERVE_SHARE = 4
_POLLS_TO_SHRINK = 2
_GAUGE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? ([0-9.eE+]+)$", re.MULTILINE)


class Throttle:
    """A gate that lets at most `limit` through at once; `limit` follows what the server says of its queue."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = self.limit = ceiling
        self.in_flight = 0
        self._too_long = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> Self:
        while self.in_flight >= self.limit:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self.in_flight += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        """Wake as many as there is room for, the longest waiting first."""
        for _ in range(min(self.limit - self.in_flight, len(self._waiting))):
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def heed(self, running: int, waiting: int) -> None:
        """Take in one look at the server: shrink where its queue stays long, grow where it is empty."""
        reserve = max(_LEAST_RESERVE, running // _RESERVE_SHARE)
        self._too_long = self._too_long + 1 if waiting > reserve else 0
        if self._too_long >= _POLLS_TO_SHRINK:
            self.limit = min(self.limit, max(1, running + reserve))
        elif waiting == 0:
            self.limit = min(self.ceiling, self.limit + reserve)

    async def follow(self, metrics: Callable[[], Awaitable[str | None]]) -> None:
        """Look at the server's metrics again and again; for good it stays as it is where there are none."""
        while (queue := read_queue(await metrics() or "")) is not None:
            self.heed(*queue)
            self._let_in()
            await asyncio.sleep(POLL_S)


def read_queue(metrics: str) -> tuple[int, int] | None:
    """Requests that run and that wait, summed over a vLLM server's engines; None where the text does not say."""
    gauges: dict[str, float] = {}
    for name, value in _GAUGE.findall(metrics):
        gauges[name] = gauges.get(name, 0.0) + float(value)
    return (int(gauges["running"]), int(gauges["waiting"])) if len(gauges) == 2 else None
