"""Many requests of a step to one server: what they cost, and when too many of them failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.json_values import as_record
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.resumable_log import ResumableLog, read_log
from tunesmith.tools.core.stage import Request
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

    started = time.monotonic()
    chat_client(server).complete_all(requests, concurrency=concurrency, on_result=take)
    tally.seconds += time.monotonic() - started
    if len(errors) > MAX_ERROR_SHARE * len(requests):
        raise StepFailed(
            f"{len(errors)} of {len(requests)} requests were not answered ({errors[0]}); the server's log is "
            f"{server.log}; the answered rows are kept, `--resume` goes on with the others"
        )


_LOGGED = ("id", "text", "finish_reason", "prompt_tokens", "completion_tokens", "steps")


def storable(text: str) -> str:
    """A model's text with a question mark for half a character: JSON can hold one, and no file or table does."""
    return text.encode(errors="replace").decode()


class Asker(Protocol):
    """Who answers requests."""

    model: str

    def ask(
        self, requests: Sequence[ChatRequest], note: str, on_answer: Callable[[ChatResponse], None] | None = None
    ) -> dict[str, ChatResponse]:
        """The answers by the ids of their requests; one that was not to be had is left out."""


class AnswerLog:
    """The answers of one server in one step, in the file `name` of the step's folder."""

    def __init__(self, job: Job[Request], server: servers.Server, tally: Tally, name: str, *, concurrency: int) -> None:
        self.job, self.server, self.tally, self.concurrency = job, server, tally, concurrency
        self.model = server.model
        self.path = job.dir / name
        self.answers = self._read()

    def ask(
        self, requests: Sequence[ChatRequest], note: str, on_answer: Callable[[ChatResponse], None] | None = None
    ) -> dict[str, ChatResponse]:
        """As `Asker.ask`; what was answered before is not asked again. Raises StepFailed for too many errors."""
        ids = [request.id for request in requests]
        if len(set(ids)) < len(ids):
            raise StepFailed(f"two requests of one round are called {next(i for i in ids if ids.count(i) > 1)}")
        if on_answer:
            for identity in ids:
                if identity in self.answers:
                    on_answer(self.answers[identity])
        pending = [request for request in requests if request.id not in self.answers]
        done = len(requests) - len(pending)
        with ResumableLog(self.path) as log:

            def keep(response: ChatResponse) -> None:
                nonlocal done
                response = replace(response, text=storable(response.text))
                values = asdict(response)
                log.add({name: values[name] for name in _LOGGED})
                self.answers[response.id] = response
                done += 1
                self.job.progress(done, len(requests), note)
                if on_answer:
                    on_answer(response)

            if pending:
                ask(self.server, pending, keep, self.tally, concurrency=self.concurrency)
        return {identity: self.answers[identity] for identity in ids if identity in self.answers}

    def _read(self) -> dict[str, ChatResponse]:
        answers = {}
        for entry in read_log(self.path):
            response = as_record(ChatResponse, {name: entry[name] for name in _LOGGED if name in entry})
            answers[response.id] = response
        return answers
