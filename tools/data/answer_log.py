"""Requests to a model and their answers, kept line by line: a killed step replays what it has and asks the rest.

Whatever is made from the answers is made by code that is a pure function of them, so a resumed step comes to the same
rows without asking anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.resumable_log import ResumableLog, read_log
from tunesmith.tools.core.stage import Request
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.requests import Tally, ask

_KEPT = ("id", "text", "finish_reason", "prompt_tokens", "completion_tokens", "steps")


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
                values = asdict(response)
                log.add({name: values[name] for name in _KEPT})
                self.answers[response.id] = response
                servers.renew(self.server)
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
            response = ChatResponse(**{name: entry[name] for name in _KEPT if name in entry})
            answers[response.id] = response
        return answers
