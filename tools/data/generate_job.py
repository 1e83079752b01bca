"""generate at work: ask the writer for each drawn row, the base for each rehearsal row, and store every row at once.

Killed anywhere, it goes on with the rows that are not stored yet. The draw is seeded; the words are sampled, and come
out different in another run. Requests carry no seed: a seeded, sampled request ends vLLM 0.32 on CPU.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tunesmith.memory.records import Artifact, TrainingRow
from tunesmith.tools.core.job import Job
from tunesmith.tools.data import row_file
from tunesmith.tools.data.attributes import Attributes, answer_of, draw
from tunesmith.tools.data.behaviour import AnyBehaviour, Behaviour, load_behaviour, load_rehearsal, pins_of
from tunesmith.tools.data.example_behaviour import ExampleBehaviour
from tunesmith.tools.data.example_synthesis import write_rows
from tunesmith.tools.data.generate import GenerateRequest, GenerateResult
from tunesmith.tools.data.text_synthesis import compose, problems, says_it, stop_at, taken, writer_messages
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.model_server import bench_server
from tunesmith.tools.serving.requests import Tally, ask

# top_k and not top_p, which sorts the whole vocabulary for every token: 2.7 times as many tokens a second on two cores.
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False, "top_k": 40}
_REHEARSAL_TOKENS = 96
"""Of each answer: long enough for a sentence to end and another to begin, or the model learns to stop early."""


def run(job: Job[GenerateRequest]) -> GenerateResult:
    """Write the rows that are missing, then publish all of them."""
    request, base = job.request, job.verified("base")
    teacher = job.verified("teacher") if "teacher" in job.inputs else None
    behaviour, tally = load_behaviour(request.behaviour), Tally()
    rehearsal = load_rehearsal(request.behaviour)  # read once: what was agreed to is what is used
    for name, sha256 in pins_of(behaviour, rehearsal).items():
        job.agreed(name, sha256)
    if teacher:
        with bench_server(job, teacher) as server:
            _write(job, behaviour, server, tally, rehearsal, rehearse=False)
    if not teacher or request.rehearsal_rows:
        _by_base(job, behaviour, base, tally, rehearsal)
    rows = job.store.rows(job.step.id)
    return _result(job, rows, _publish(job, behaviour, rows), tally)


def _by_base(
    job: Job[GenerateRequest], behaviour: AnyBehaviour, base: Artifact, tally: Tally, rehearsal: Sequence[str]
) -> None:
    """What the base writes: rehearsal always, the rows where there is no teacher."""
    teacher = "teacher" in job.inputs
    with bench_server(job, base, adapters_allowed=True) as server:
        if teacher or isinstance(behaviour, ExampleBehaviour):
            _Asking(job, None, server, tally, rehearsal).ask_all()
        if not teacher:
            _write(job, behaviour, server, tally, rehearsal, rehearse=True)


def _write(
    job: Job[GenerateRequest],
    behaviour: AnyBehaviour,
    server: servers.Server,
    tally: Tally,
    rehearsal: Sequence[str],
    *,
    rehearse: bool,
) -> None:
    """Have one server write the rows of the behaviour; those of drawn attributes together with rehearsal."""
    if isinstance(behaviour, ExampleBehaviour):
        write_rows(job, behaviour, server, tally, rehearsal)
    else:
        _Asking(job, behaviour, server, tally, rehearsal if rehearse else ()).ask_all()


class _Asking:
    """The rows that one server is still to be asked for; each is stored as its answer arrives."""

    def __init__(
        self,
        job: Job[GenerateRequest],
        behaviour: Behaviour | None,
        server: servers.Server,
        tally: Tally,
        rehearsal: Sequence[str],
    ) -> None:
        """Without a `behaviour`: rehearsal alone."""
        self.job, self.behaviour, self.server, self.tally = job, behaviour, server, tally
        drawn = [draw(behaviour, job.request.seed, index) for index in range(job.request.rows)] if behaviour else []
        chosen = _chosen_prompts(job.request, rehearsal)
        stored = {row.row_id for row in job.store.rows(job.step.id)}
        self.total = len(drawn) + len(chosen)
        self.pending = {a.row_id: a for a in drawn if a.row_id not in stored}
        self.prompts = {row_id: prompt for row_id, prompt in chosen.items() if row_id not in stored}
        self.attempt = 0

    def ask_all(self) -> None:
        """Rehearsal and texts together, long answers first; then again the texts that did not say what was drawn."""
        rehearsal = [
            ChatRequest(row_id, self.server.model, [{"role": "user", "content": prompt}], _REHEARSAL_TOKENS)
            for row_id, prompt in self.prompts.items()
        ]
        for attempt in range(1, self.job.request.tries + 1):
            self.attempt = attempt
            texts = [self._text_request(attributes) for attributes in self.pending.values()]
            ask(self.job, self.server, [*rehearsal, *texts], self._keep, self.tally)
            rehearsal = []

    def _text_request(self, attributes: Attributes) -> ChatRequest:
        assert self.behaviour is not None
        return ChatRequest(
            id=attributes.row_id,
            model=self.server.model,
            messages=writer_messages(self.behaviour, attributes),
            max_tokens=self.behaviour.writer.max_tokens,
            temperature=self.job.request.temperature,
            extra={**_CONTINUE, "stop": stop_at(attributes)},
        )

    def _keep(self, response: ChatResponse) -> None:
        row = self._rehearsed(response) if response.id in self.prompts else self._written(response)
        if row is not None:
            self.job.store.add_rows(self.job.run, self.job.step.id, [row])
        servers.renew(self.server)
        left = len(self.pending) + len(self.prompts)
        self.job.progress(self.total - left, self.total, f"attempt {self.attempt}" if self.attempt > 1 else "writing")

    def _rehearsed(self, response: ChatResponse) -> TrainingRow:
        prompt = [{"role": "user", "content": self.prompts.pop(response.id)}]
        answer = [{"role": "assistant", "content": response.text.strip()}]
        return TrainingRow(response.id, "rehearsal", prompt, answer, {"finish_reason": response.finish_reason})

    def _written(self, response: ChatResponse) -> TrainingRow | None:
        """The row of a text, or None where it is worth another attempt."""
        assert self.behaviour is not None
        attributes, last = self.pending[response.id], self.attempt == self.job.request.tries
        row = _row(self.behaviour, attributes, response.text, self.attempt)
        if not last and (not row.attributes["says_it"] or problems(self.behaviour, attributes, row.attributes["text"])):
            return None
        del self.pending[response.id]
        return row


def _chosen_prompts(request: GenerateRequest, rehearsal: Sequence[str]) -> dict[str, str]:
    """Row id → ordinary prompt, as many as were asked for, in an order that the seed decides."""
    prompts = list(enumerate(rehearsal))
    random.Random(request.seed).shuffle(prompts)
    return {f"r{number:04d}": prompt for number, prompt in prompts[: request.rehearsal_rows]}


def _row(behaviour: Behaviour, attributes: Attributes, answered: str, attempt: int) -> TrainingRow:
    sentences = taken(behaviour, attributes, answered)
    text = compose(behaviour, attributes, sentences)
    written = {"written": sentences, "says_it": says_it(behaviour, attributes, sentences), "attempt": attempt}
    return TrainingRow(
        row_id=attributes.row_id,
        origin="generated",
        prompt=[{"role": "user", "content": behaviour.render(text)}],
        completion=[{"role": "assistant", "content": answer_of(behaviour, attributes)}],
        attributes={**attributes.as_dict(), "text": text, **written},
    )


def _publish(job: Job[GenerateRequest], behaviour: AnyBehaviour, rows: Sequence[TrainingRow]) -> Artifact:
    folder = job.dir / "rows"
    row_file.write_rows(folder / "rows.jsonl", sorted(rows, key=lambda row: row.row_id))
    meta = {"rows": len(rows), "behaviour": job.request.behaviour, "behaviour_sha256": behaviour.sha256}
    return job.publish("rows", folder, meta=meta)


def _result(job: Job[GenerateRequest], rows: Sequence[TrainingRow], artifact: Artifact, tally: Tally) -> GenerateResult:
    texts = [row for row in rows if row.origin == "generated"]
    return GenerateResult(
        artifact=artifact.id,
        path=str(artifact.path),
        rows=len(texts),
        rehearsal_rows=len(rows) - len(texts),
        first_try=sum(row.attributes["attempt"] == 1 for row in texts),
        completed=sum(not row.attributes.get("says_it", True) for row in texts),
        kind_checked=any("of_kind" in row.attributes for row in texts),
        requests=tally.requests,
        generated_tokens=tally.tokens,
        tokens_per_second=round(tally.tokens / tally.seconds, 1) if tally.seconds else 0.0,
    )
