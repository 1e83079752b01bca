"""Many requests of a step to one server: what they cost, and when too many of them failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.stats import MAX_ERROR_SHARE
from tunesmith.tools.models.chat_template import takes_system
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse


@dataclass(slots=True)
class Tally:
    """What the requests of this process cost."""

    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0


def chat_client(server: servers.Server) -> ChatClient:
    """Connections to a server that are told what its chat template takes."""
    return ChatClient(
        server.url, server.key, listener=server.listener, takes_system=takes_system(Path(server.spec.model_dir))
    )


def ask(
    server: servers.Server,
    requests: Sequence[ChatRequest],
    keep: Callable[[ChatResponse], None],
    tally: Tally,
    *,
    concurrency: int,
) -> None:
    """Send requests and hand on their answers; those without one are left out. Raises StepFailed for too many."""
    errors: list[str] = []

    def take(response: ChatResponse) -> None:
        tally.requests += 1
        tally.tokens += response.completion_tokens
        if response.error:
            errors.append(response.error)
        else:
            keep(response)

    async def ask_all() -> None:
        async with chat_client(server) as client:
            await client.complete_many(requests, concurrency=concurrency, on_result=take)

    started = time.monotonic()
    asyncio.run(ask_all())
    tally.seconds += time.monotonic() - started
    if len(errors) > MAX_ERROR_SHARE * len(requests):
        raise StepFailed(
            f"{len(errors)} of {len(requests)} requests were not answered ({errors[0]}); the server's log is "
            f"{server.log}; the answered rows are kept, `--resume` goes on with the others"
        )
