"""generate at work: rows from drawn attributes, near misses and rehearsal, every one stored as soon as it is done.

Killed anywhere, it goes on with what is not there yet: the models' answers are kept line by line, and what is made of
them is a pure function of them. Requests carry no seed: a seeded, sampled request ends vLLM 0.32 on CPU.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from pydantic import JsonValue

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import Artifact, TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.job import Job
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answers import RowJudge, write_answers
from tunesmith.tools.data.augmentation import near_misses
from tunesmith.tools.data.behaviour import load_behaviour, load_rehearsal, pins_of, untested
from tunesmith.tools.data.draw import in_turn
from tunesmith.tools.data.generate import (
    GenerateRequest,
    GenerateResult,
    near_misses_wanted,
    rows_wanted,
    rows_written,
    spare_of,
)
from tunesmith.tools.data.lists import Listed, Lists, labels_lead, reads_values
from tunesmith.tools.data.reader import Reader
from tunesmith.tools.data.rows import EXAMPLE, ORDINARY, read_rows, write_rows
from tunesmith.tools.data.spec import Answer, Spec
from tunesmith.tools.data.synthesis import Synthesis, Written
from tunesmith.tools.data.writer_requests import Shot, sentence_shots
from tunesmith.tools.models.chat_template import thoughts_of
from tunesmith.tools.models.measuring import QUANTIZED_BASE, answering_base
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse, assistant, system, user
from tunesmith.tools.serving.context_settings import ContextSettings, choose_context_settings, context_settings_at_work
from tunesmith.tools.serving.model_server import measuring_server
from tunesmith.tools.serving.requests import AnswerLog, Tally
from tunesmith.tools.serving.thoughts import without_thought

_PROMPTS_AT_ONCE = 16
"""Ordinary prompts that are read together, at least: a server works on so many in the time of one or two."""


def run(job: Job[GenerateRequest]) -> GenerateResult:
    """Write the rows that are missing, then publish all of them."""
    job.verified("base")
    base = answering_base(job.inputs)
    if base.kind == QUANTIZED_BASE:
        job.verified(QUANTIZED_BASE)
    teacher = job.verified("teacher") if "teacher" in job.inputs else None
    spec, tally = load_behaviour(job.request.behaviour), Tally()
    rehearsal = load_rehearsal(job.request.behaviour)  # read once: what was agreed to is what is used
    for name, sha256 in pins_of(spec, rehearsal).items():
        job.agreed(name, sha256)
    settings = context_settings_at_work(job)
    making = _Making(job, spec, tally, rehearsal, settings)
    making.keep_rows()
    making.take_examples()
    if teacher:
        with measuring_server(
            job, teacher, context_settings=choose_context_settings(thoughts_of(teacher.path))
        ) as server:
            making.written_by(server)
    if not teacher or making.needs_base:
        with measuring_server(job, base, adapters_allowed=True, context_settings=settings) as server:
            if not teacher:
                making.written_by(server)
            making.answered_by(server)
    rows = job.store.rows(job.step.id)
    return _result(job, rows, _publish(job, spec, rows), tally)


class _Making:
    """The rows of one step. What the writer decided for the base lies in files: the base may come later."""

    def __init__(
        self, job: Job[GenerateRequest], spec: Spec, tally: Tally, rehearsal: Sequence[str], settings: ContextSettings
    ) -> None:
        self.job, self.spec, self.tally, self.settings = job, spec, tally, settings
        request = job.request
        self.rows = rows_wanted(request)
        self.near_count = near_misses_wanted(request)
        self.rehearsal_count = request.rehearsal_rows
        self.stored = {row.row_id for row in job.store.rows(job.step.id)}
        self.ordinary = rehearsal
        self.decided = job.dir / "ordinary.json"

    def keep_rows(self) -> None:
        """Where none is written, the run's rows stay, but for its ordinary ones, which are made anew."""
        if self.rows or "rows" not in self.job.inputs:
            return
        rows = read_rows(self.job.verified("rows").path / "rows.jsonl")
        rows = [row for row in rows if row.origin not in ORDINARY and row.row_id not in self.stored]
        self.stored |= {row.row_id for row in rows}
        self.job.store.add_rows(self.job.run, self.job.step.id, rows)

    @property
    def needs_base(self) -> bool:
        """Whether the base has anything to answer."""
        return bool(self.near_count or self.rehearsal_count)

    def written_by(self, server: servers.Server) -> None:
        """What the writer does: rows, near misses, and which ordinary prompts are of the behaviour's own kind."""
        request, spec = self.job.request, self.spec
        log = AnswerLog(self.job, server, self.tally, "writer.jsonl", concurrency=self.job.request.concurrency)
        sentences, distractors = sentence_shots(spec) if form_of(spec).of_records else ([], [])
        shots = [*sentences, *(Shot(text, {}) for text in distractors)]
        # Where no row is written none is read back, and the reader has only to tell what is of the kind.
        read = spec if self.rows else spec.model_copy(update={"attributes": (), "answer": Answer()})
        reader = Reader(read, log, self.ordinary, request.seed, shots)
        self.job.log(f"the reader: {reader.trust}")
        if self.rows:
            self._write(log, reader)
        atomic_write(
            self.job.dir / "reader.json",
            json.dumps({"trust": reader.trust.model_dump(), "read": reader.counts, "unverified": reader.unverified}),
        )
        taught = untested(spec, request.behaviour)
        near = near_misses(taught, log, self.near_count, request.seed, self._sound_messages(), reader.other_kinds)
        ordinary = self._ordinary(reader)
        atomic_write(self.decided, json.dumps({"near": near, "ordinary": ordinary}, ensure_ascii=False))

    def _write(self, log: AnswerLog, reader: Reader) -> None:
        request, spec = self.job.request, self.spec
        composed = form_of(spec).composed
        led = labels_lead(spec) and (reader.trust.reads_answers or not reads_values(spec))
        way = Lists if form_of(spec).of_records else Listed if led else Synthesis
        synthesis = way(
            spec, log, rows_written(request, spare_of(spec)), request.seed, request.temperature, request.tries, reader,
            wanted=self.rows, keep=self._store if composed else lambda written: None,
        )  # fmt: skip
        written = synthesis.write()
        if not composed:
            judge = RowJudge(spec, log, [], name=log.model, wrote_the_rows=True)
            likely = judge.likely if judge.worth.counted else None
            for one in write_answers(spec, log, written, request.temperature, likely):
                self._store(one)
        if not written:
            raise StepFailed(f"none of {self.rows} rows was written; the server's log is {log.server.log}")

    def _sound_messages(self) -> list[str]:
        """The messages of rows that nothing is wrong with, as far as is known: written here, or a person's."""
        rows = sorted(self.job.store.rows(self.job.step.id), key=lambda row: row.row_id)
        return [self.spec.text_of(r.prompt) for r in rows if r.origin not in ORDINARY and not r.attributes.problem]

    def _ordinary(self, reader: Reader) -> list[str]:
        """As many ordinary prompts as are wanted that are not of the behaviour's own kind."""
        left = random.Random(self.job.request.seed).sample(self.ordinary, len(self.ordinary))
        chosen: list[str] = []
        while left and len(chosen) < self.rehearsal_count:
            count = max(_PROMPTS_AT_ONCE, self.rehearsal_count - len(chosen))
            some, left = left[:count], left[count:]
            chosen += reader.not_of_kind(some)
        return chosen[: self.rehearsal_count]

    def take_examples(self) -> None:
        """The user's examples as rows, where there are so many that others of them are blind cases."""
        for number, example in enumerate(self.spec.examples if self.spec.blind_sha256 else ()):
            row_id = f"e{number:04d}"
            if row_id not in self.stored:
                seen_under = [system(example.system)] if example.system else self._system(row_id, number)
                prompt = [*seen_under, *self.spec.turns(example.prompt)]
                attributes = RowAttributes(text=example.prompt, tools=example.tools or self.spec.tools)
                self._add(TrainingRow(row_id, EXAMPLE, prompt, [form_of(self.spec).turn(example.answer)], attributes))

    def answered_by(self, server: servers.Server) -> None:
        """What the base answers in its own way, greedy: near misses and rehearsal, both held by the KL term."""
        decided = json.loads(self.decided.read_text())
        prompts = {f"n{n:04d}": text for n, text in enumerate(decided["near"])}
        prompts |= {f"r{n:04d}": text for n, text in enumerate(decided["ordinary"])}
        log = AnswerLog(self.job, server, self.tally, "base.jsonl", concurrency=self.job.request.concurrency)
        systems = {row_id: self._system(row_id, n) for n, row_id in enumerate(prompts)}
        tokens = self.job.request.ordinary_tokens + self.settings.thinking_tokens
        requests = [
            ChatRequest(row_id, server.model, [*systems[row_id], user(text)], tokens, tools=self._tools(row_id))
            for row_id, text in prompts.items()
        ]

        def keep(response: ChatResponse) -> None:
            if self.settings.thinking == "on" and (response := without_thought(response)).error:
                return  # an answer that never came is no ordinary one
            if response.id not in self.stored:
                origin = "near_miss" if response.id.startswith("n") else "rehearsal"
                prompt = [*systems[response.id], user(prompts[response.id])]
                answer = [assistant(response.text.strip())]
                tools = self._tools(response.id)
                attributes = RowAttributes(finish_reason=response.finish_reason, tools=tools)
                self._add(TrainingRow(response.id, origin, prompt, answer, attributes))

        log.ask(requests, "answering ordinary prompts", keep)

    def _tools(self, identity: str) -> tuple[dict[str, JsonValue], ...]:
        """What is offered with an ordinary message: with a look-alike the behaviour's tools, which it leaves alone."""
        return self.spec.tools if identity.startswith("n") else ()

    def _system(self, identity: str, number: int) -> list[dict[str, str]]:
        """The system prompt that a row is seen under: none, or those of the spec in turn."""
        if not self.spec.system_prompts or random.Random(f"system/{identity}").random() >= self.spec.system_share:
            return []
        return [system(in_turn(self.spec.system_prompts, "system", number))]

    def _store(self, written: Written) -> None:
        row_id = written.drawn.row_id
        if row_id in self.stored:
            return
        attributes = RowAttributes(
            draw=written.drawn,
            text=written.message,
            attempt=written.attempt,
            problem=written.problem,
            read=tuple((one.attribute, one.drawn, one.read) for one in written.read),
            margin=written.margin,
            relabelled=tuple((name, str(value)) for name, value in written.relabelled.items()),
            finish_reason=written.finish_reason,
            agreed=written.agreed,  # with other answers: such a one may become a case
            of_kind=None if written.of_kind is None else round(written.of_kind, 4),
            tools=self.spec.tools,
        )
        prompt = [*self._system(row_id, int(row_id[1:])), *self.spec.turns(written.message)]
        answer = [form_of(self.spec).turn(written.answer)]
        self._add(TrainingRow(row_id, "generated", prompt, answer, attributes))

    def _add(self, row: TrainingRow) -> None:
        self.stored.add(row.row_id)
        self.job.store.add_rows(self.job.run, self.job.step.id, [row])


def _publish(job: Job[GenerateRequest], spec: Spec, rows: Sequence[TrainingRow]) -> Artifact:
    folder = job.dir / "rows"
    write_rows(folder / "rows.jsonl", sorted(rows, key=lambda row: row.row_id))
    atomic_write(folder / "reader.json", (job.dir / "reader.json").read_bytes())
    writer = job.inputs[job.request.writer]  # a base by its own digest, whichever weights of it answered
    meta = {"rows": len(rows), "behaviour": job.request.behaviour, "behaviour_sha256": spec.sha256}
    meta |= {"asked": job.request.rows, "ordinary": sum(row.origin in ORDINARY for row in rows)}
    meta |= {"writer": writer.meta["name"], "writer_sha256": writer.sha256}
    meta["unverified"] = json.loads((job.dir / "reader.json").read_text())["unverified"]
    if not job.request.rows and "rows" in job.inputs:
        meta |= {name: value for name, value in job.inputs["rows"].meta.items() if name != "rows"}
    return job.publish("rows", folder, meta=meta)


def _result(job: Job[GenerateRequest], rows: Sequence[TrainingRow], artifact: Artifact, tally: Tally) -> GenerateResult:
    texts = [row for row in rows if row.origin == "generated"] if job.request.rows else []
    reader = json.loads((job.dir / "reader.json").read_text())
    good = [row for row in texts if not row.attributes.problem]
    return GenerateResult(
        artifact=artifact.id,
        path=str(artifact.path),
        rows=len(texts),
        near_miss_rows=sum(row.origin == "near_miss" for row in rows),
        rehearsal_rows=sum(row.origin == "rehearsal" for row in rows),
        agreed=len(good),
        first_try=sum(row.attributes.attempt == 1 for row in good),
        reader=reader["trust"],
        read=reader["read"],
        unverified=tuple(reader["unverified"]),
        requests=tally.requests,
        generated_tokens=tally.tokens,
        tokens_per_second=round(tally.tokens / tally.seconds, 1) if tally.seconds else 0.0,
    )
