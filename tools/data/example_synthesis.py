"""The rows of a behaviour by examples: the served model names subjects, writes messages, and answers them as described.

Three rounds, each kept as it comes: `subjects.json`, `messages.jsonl`, then the rows in the store. Killed anywhere, the
step goes on with what is not there yet. A message that is not of the kind, or an answer that breaks a rule, is asked
for again; the last attempt goes to critique as it is, which drops it with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.resumable_log import ResumableLog, read_log
from tunesmith.tools.data.example_behaviour import (
    LIKE_AN_EXAMPLE,
    SUBJECTS_ASKED,
    Drawn,
    ExampleBehaviour,
    answer_messages,
    answer_problem,
    distinct,
    draw_row,
    json_schema,
    message_in,
    message_request,
    prompt_problem,
    subject_request,
    subjects_in,
)
from tunesmith.tools.data.generate import GenerateRequest
from tunesmith.tools.data.kind_check import KindCheck
from tunesmith.tools.data.similarity import Likeness
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.requests import Tally, ask

_ROWS_PER_SUBJECT = 2
_SUBJECT_REQUESTS_MIN, _SUBJECT_REQUESTS_MAX = 4, 60


def write_rows(
    job: Job[GenerateRequest],
    behaviour: ExampleBehaviour,
    server: servers.Server,
    tally: Tally,
    rehearsal: Sequence[str],
) -> None:
    """Write every row that is not stored yet."""
    subjects = _subjects(job, behaviour, server, tally)
    request = job.request
    stored = {row.row_id for row in job.store.rows(job.step.id)}
    drawn = [draw_row(behaviour, subjects, request.seed, index) for index in range(request.rows)]
    pending = {one.row_id: one for one in drawn if one.row_id not in stored}
    written = _Messages(job, behaviour, server, tally, drawn, rehearsal)
    written.write()
    _Answers(job, behaviour, server, tally, pending, written).write()


def _subjects(
    job: Job[GenerateRequest], behaviour: ExampleBehaviour, server: servers.Server, tally: Tally
) -> list[str]:
    """What messages may be about, half as many as rows; named once, so that a resumed step draws the same rows."""
    path = job.dir / "subjects.json"
    if path.exists():
        kept: list[str] = json.loads(path.read_text())
        return kept
    wanted = job.request.rows // _ROWS_PER_SUBJECT // (SUBJECTS_ASKED // 2)
    count = min(_SUBJECT_REQUESTS_MAX, max(_SUBJECT_REQUESTS_MIN, wanted))
    requests = [subject_request(behaviour, server.model, job.request.seed, number) for number in range(count)]
    named: dict[str, list[str]] = {}

    def keep(response: ChatResponse) -> None:
        named[response.id] = subjects_in(response.text)
        servers.renew(server)
        job.progress(len(named), count, "naming subjects")

    ask(job, server, requests, keep, tally)
    subjects = distinct(subject for name in sorted(named) for subject in named[name])
    atomic_write(path, json.dumps(subjects, ensure_ascii=False, indent=1))
    return subjects


class _Messages:
    """The messages of the rows, each kept in `messages.jsonl` as it arrives."""

    def __init__(
        self,
        job: Job[GenerateRequest],
        behaviour: ExampleBehaviour,
        server: servers.Server,
        tally: Tally,
        drawn: list[Drawn],
        rehearsal: Sequence[str],
    ) -> None:
        self.job, self.behaviour, self.server, self.tally = job, behaviour, server, tally
        self.drawn = {one.row_id: one for one in drawn}
        self.path = job.dir / "messages.jsonl"
        self.found: dict[str, str] = {}
        self.of_kind: dict[str, bool] = {}
        self._read()
        self.seen = Likeness(self.found.values())
        self.kind = KindCheck(job, behaviour, server, tally, rehearsal)
        self.attempt = 0

    def write(self) -> None:
        """Ask for every message; one that is none, is like another or is not of the kind is asked for again."""
        with ResumableLog(self.path) as log:
            for attempt in range(1, self.job.request.tries + 1):
                self.attempt = attempt
                requests = [
                    message_request(self.behaviour, one, self.server.model, self.job.request.temperature)
                    for row_id, one in self.drawn.items()
                    if not self.of_kind.get(row_id, row_id in self.found)
                ]
                ask(self.job, self.server, requests, lambda response: self._keep(response, log), self.tally)
                if self.kind.trusted:
                    untold = {row_id: text for row_id, text in self.found.items() if row_id not in self.of_kind}
                    self.kind.ask(untold, lambda row_id, told: self._tell(row_id, told, log))

    def _keep(self, response: ChatResponse, log: ResumableLog) -> None:
        prompt = message_in(self.drawn[response.id], response.text)
        fit = not prompt_problem(self.behaviour, prompt)
        fit = fit and self.seen.nearest(prompt, digits_count=True)[1] < LIKE_AN_EXAMPLE
        if fit or (self.attempt == self.job.request.tries and response.id not in self.found):
            self.found[response.id] = prompt
            self.of_kind.pop(response.id, None)
            self.seen.add(prompt)
            self._add(log, {"id": response.id, "prompt": prompt})

    def _tell(self, row_id: str, told: bool, log: ResumableLog) -> None:
        self.of_kind[row_id] = told
        self._add(log, {"id": row_id, "of_kind": told})

    def _add(self, log: ResumableLog, entry: dict[str, Any]) -> None:
        log.add(entry)
        servers.renew(self.server)
        self.job.progress(len(self.found), 2 * len(self.drawn), "writing messages")

    def _read(self) -> None:
        for entry in read_log(self.path):
            if "prompt" in entry:
                self.found[entry["id"]] = entry["prompt"]
                self.of_kind.pop(entry["id"], None)
            else:
                self.of_kind[entry["id"]] = entry["of_kind"]


class _Answers:
    """The answers, each stored as its row when it arrives."""

    def __init__(
        self,
        job: Job[GenerateRequest],
        behaviour: ExampleBehaviour,
        server: servers.Server,
        tally: Tally,
        pending: dict[str, Drawn],
        written: _Messages,
    ) -> None:
        self.job, self.behaviour, self.server, self.tally = job, behaviour, server, tally
        self.prompts, self.of_kind = written.found, written.of_kind
        self.pending = {row_id: drawn for row_id, drawn in pending.items() if row_id in self.prompts}
        self.broken: dict[str, str] = {}
        schema = json_schema(behaviour)
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        self.extra = {"top_p": 0.95, **({"response_format": form} if schema else {})}
        self.total, self.attempt = len(self.prompts), 0

    def write(self) -> None:
        """An answer that breaks a rule is asked for again, and told which."""
        for attempt in range(1, self.job.request.tries + 1):
            self.attempt = attempt
            requests = [
                ChatRequest(
                    row_id,
                    self.server.model,
                    answer_messages(self.behaviour, self.prompts[row_id], self.broken.get(row_id, "")),
                    self.behaviour.max_tokens,
                    self.job.request.temperature,
                    extra=self.extra,
                )
                for row_id in self.pending
            ]
            ask(self.job, self.server, requests, self._keep, self.tally)
        if self.total and not self.job.store.rows(self.job.step.id):
            raise StepFailed(f"none of {self.total} messages was answered; the server's log is {self.server.log}")

    def _keep(self, response: ChatResponse) -> None:
        answer, cut = response.text.strip(), response.finish_reason == "length"
        problem = Verdict("cut off", "it was too long") if cut else answer_problem(self.behaviour, answer)
        self.broken[response.id] = problem.reason.removeprefix("not kept: ") if problem else ""
        if not problem or self.attempt == self.job.request.tries:
            row = self._row(response, answer)
            del self.pending[response.id]
            self.job.store.add_rows(self.job.run, self.job.step.id, [row])
        servers.renew(self.server)
        self.job.progress(2 * self.total - len(self.pending), 2 * self.total, "writing answers")

    def _row(self, response: ChatResponse, answer: str) -> TrainingRow:
        prompt, drawn = self.prompts[response.id], self.pending[response.id]
        written = {"text": prompt, "attempt": self.attempt, "finish_reason": response.finish_reason}
        if response.id in self.of_kind:
            written["of_kind"] = self.of_kind[response.id]
        return TrainingRow(
            row_id=response.id,
            origin="generated",
            prompt=[{"role": "user", "content": prompt}],
            completion=[{"role": "assistant", "content": answer}],
            attributes={**drawn.as_dict(), **written},
        )
