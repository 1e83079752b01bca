"""critique at work: a verdict and a reason for every candidate row, and the dataset of those that are kept.

Deterministic: the same candidates, behaviour, suites and marks give the same dataset. What was read back when the rows
were written counts here; a model is asked only where the request names a judge.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.marks import Mark, marks_of
from tunesmith.memory.records import KEEP, Artifact, TrainingRow, Verdict
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.similarity import Likeness, normal
from tunesmith.tools.data.answer_form import AnswerForm, form_of
from tunesmith.tools.data.answer_rules import Rule
from tunesmith.tools.data.answers import Judged, RowJudge
from tunesmith.tools.data.augmentation import variants
from tunesmith.tools.data.balance import Doubts, alarms, balance_of, best, why_dropped
from tunesmith.tools.data.behaviour import behaviour_of_rows
from tunesmith.tools.data.critique import (
    CritiqueRequest,
    CritiqueResult,
    critique_pins,
    is_judged,
    suite_of,
    wrote_them,
)
from tunesmith.tools.data.held_out import hidden, hold_out, rows_beside
from tunesmith.tools.data.row_checks import LONG_ANSWER_CHARS, BehaviourChecks
from tunesmith.tools.data.rows import (
    ORDINARY,
    RULE,
    VARIANTS,
    Repeats,
    conversation_fault,
    fault_of,
    is_persons,
    read_rows,
    repeats_in,
    text_fault,
    token_fault,
    write_rows,
)
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import CASES, write_case_suites
from tunesmith.tools.data.undecided import ACCEPTED, gate_cases, unverified_of
from tunesmith.tools.models.chat_template import template_messages, thoughts_of
from tunesmith.tools.models.turn_end import turns_of
from tunesmith.tools.serving.context_settings import ContextSettings, choose_context_settings, context_settings_at_work
from tunesmith.tools.serving.model_server import measuring_server
from tunesmith.tools.serving.requests import AnswerLog, Tally
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading.embedding import local_embedder
from tunesmith.tools.suites.leakage import Leak, LeakGate, row_texts

_AT_ONCE = 64
"""Requests in flight, and rows tokenized together: 100,000 at once would take gigabytes."""
_EMBEDDED_MAX = 20_000
"""Rows that are held to the cases by an embedding model; more would take longer than all the rest."""
_LEAKS_LISTED = 200
"""In the log and its file: of 100,000 leaks nobody reads more."""


def run(job: Job[CritiqueRequest]) -> CritiqueResult:
    """Judge every candidate, record the verdicts, publish the dataset."""
    rows_artifact, base = job.verified("rows"), job.verified("base")
    candidates = read_rows(rows_artifact.path / "rows.jsonl")  # what the plan pins, not the table that indexes it
    named = str(rows_artifact.meta["behaviour"])
    spec = behaviour_of_rows(named, candidates)
    suite, marks = suite_of(job.request, named), marks_of(job.store, spec.name)
    for name, sha256 in critique_pins(job.request, suite, marks, spec if named else None).items():
        job.agreed(name, sha256)
    cases = gate_cases(suite.cases, job.verified("suite") if "suite" in job.inputs else None)
    judging = _judging(job) if is_judged(job.request, spec, rows_artifact) else None  # refused before the rows are read
    critic = Critic(spec, cases, job.request, marks, special_tokens(base.path))
    judged = critic.judge(candidates, progress=lambda done: job.progress(done, len(candidates), "judging"))
    unverified = unverified_of(job.store, rows_artifact)
    judged, trial = _by_the_judge(job, judging, spec, judged, marks) if judging else (judged, None)
    asked, beside = rows_artifact.count("asked", 0), rows_beside(job.request.held_out)
    judged = best(spec, judged, asked + beside if asked else 0)
    withheld = hold_out(spec, judged, marks, job.request.held_out, job.request.leak, known=not unverified.names)
    judged = withheld.rows
    job.store.judge_rows(rows_artifact.step, judged)
    _hold_the_gate(job, critic.leaks)
    _settled_contradictions(job, critic.repeats)
    accepted, dropped = [row for row in judged if row.usable], why_dropped(judged, job.run)
    balance = balance_of(spec, accepted, dropped)
    varied = [row for row in variants(spec, [row for row in accepted if row.split == "train"]) if critic.sound(row)]
    varied = [row for row in varied if not withheld.like_a_case(spec, row)]
    write_case_suites(critic.borne_out, job.dir / "dataset" / CASES, withheld, judged=job.request.rubrics)
    accepted, varied = ([_with_values_at(critic.form, row) for row in rows] for rows in (accepted, varied))
    counts = {"cases": withheld.cases, "asked_rows": asked, ACCEPTED: int(job.request.unverified_rows)}
    artifact = _publish(job, base.path, accepted, varied, dropped, counts)
    seen = {
        "alarms": (*unverified.notes(accepted=job.request.unverified_rows), *alarms(spec, judged, accepted)),
        "judge": trial,
        "cases": withheld.cases,
        "variants": len(varied),
        "marks": len(marks),
        "notes": (*critic.doubts.notes(sum(map(is_persons, judged))), *([withheld.note] if withheld.note else [])),
    }
    return _result(judged, accepted, balance, artifact, len(critic.leaks)).model_copy(update=seen)


def _judging(job: Job[CritiqueRequest]) -> tuple[Artifact, ContextSettings]:
    """The model that judges, and how it is asked. Raises StepFailed where one of them changed since the yes."""
    model = job.verified("judge")
    if job.request.judge == "base":
        return model, context_settings_at_work(job)
    return model, choose_context_settings(thoughts_of(model.path))


def _by_the_judge(
    job: Job[CritiqueRequest], by: tuple[Artifact, ContextSettings], spec: Spec, rows: list[TrainingRow],
    marks: Sequence[Mark],
) -> tuple[list[TrainingRow], Judged]:  # fmt: skip
    """The rows after a model judged them; what a person marked or wrote no model has to confirm."""
    (model, settings), own = by, wrote_them(job.inputs["rows"], job.inputs["judge"])
    marked = {normal(mark.message, digits_count=True) for mark in marks}
    of_run = job.request.judge == "base"
    with measuring_server(job, model, adapters_allowed=of_run, context_settings=settings) as server:
        log = AnswerLog(job, server, Tally(), "judge.jsonl", concurrency=_AT_ONCE)
        judge = RowJudge(spec, log, marks, name=str(model.meta["name"]), wrote_the_rows=own)
        job.log(f"the judge: {judge.worth}")
        unmarked = [r for r in rows if normal(spec.text_of(r.prompt), digits_count=True) not in marked]
        by_id = {row.row_id: row for row in judge.judge([r for r in unmarked if not is_persons(r)])}
    return [by_id.get(row.row_id, row) for row in rows], judge.worth


def _hold_the_gate(job: Job[CritiqueRequest], leaks: Sequence[Leak]) -> None:
    """Print every pair; refuse to go on with a leak unless the request says to drop them."""
    job.write_json("leaks.json", [asdict(leak) for leak in leaks[:_LEAKS_LISTED]])
    for leak in leaks[:_LEAKS_LISTED]:
        job.log(f"leak: row {leak.row_id}: {leak}")
    if leaks and job.request.on_leak == "refuse":
        first = leaks[0]
        raise StepFailed(
            f"{len(leaks)} rows give away a case of a suite, the first: row {first.row_id}, {first}; all are in "
            f"{job.dir / 'leaks.json'}; drop them with on_leak=drop, or change the cases"
        )


def _settled_contradictions(job: Job[CritiqueRequest], repeats: Repeats) -> None:
    """Refuse to go on with a person's rows that contradict each other, unless the request says what becomes of them."""
    if not repeats.contradicted or job.request.contradictory != "refuse":
        return
    row, other = next(iter(repeats.contradicted.items()))
    raise StepFailed(
        f"{len(repeats.contradicted)} rows answer a message that another row answers otherwise, the first: {row} and "
        f"{other}; correct them, leave all of them out with contradictory=drop, or train on all with contradictory=keep"
    )


class Critic:
    """What is asked of a row, in this order; the duplicates last, so that only kept rows count as seen."""

    def __init__(
        self, spec: Spec, cases: Sequence[Case], request: CritiqueRequest, marks: Sequence[Mark] = (),
        special_tokens: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`special_tokens` are those of the base that is trained, as they are written."""
        self.spec, self.form, self.request = spec, form_of(spec), request
        self.special_tokens = special_tokens
        self.marks = {normal(mark.message, digits_count=True): mark for mark in marks}
        self.checks = BehaviourChecks(spec, [case for case in cases if case.block == "target"])
        self.gate = LeakGate(cases, spec.slot, request.leak)
        self.seen = Likeness()
        self.answers: dict[str, str] = {}
        self.doubts, self.repeats = Doubts(), Repeats({}, {})
        self.refuted: list[Rule] = []
        self.leaks: list[Leak] = []
        self.blind_leaks: set[str] = set()
        """Rows that give a blind case away."""

    def judge(
        self, rows: Sequence[TrainingRow], progress: Callable[[int], None] = lambda done: None
    ) -> list[TrainingRow]:
        """The rows with their verdicts, reasons and splits, in their order."""
        faults: dict[str, Verdict] = {}
        rows = [self._as_marked(row) for row in rows]
        self.repeats = repeats_in(rows)
        for number, row in enumerate(rows, 1):
            if fault := self._fault(row):
                faults[row.row_id] = fault
            progress(number)
        self._embedded([row for row in rows if row.row_id not in faults], faults)
        return [self._judged(row, faults.get(row.row_id)) for row in rows]

    def _judged(self, row: TrainingRow, fault: Verdict | None) -> TrainingRow:
        split = split_of(row, self.request.valid_share)
        if fault and row.row_id in self.blind_leaks:
            row = hidden(row, fault)
        return replace(row, verdict=fault or Verdict(KEEP), split=split)

    def _mark(self, row: TrainingRow) -> Mark | None:
        if not self.marks or row.origin in ORDINARY:
            return None
        return self.marks.get(normal(self.spec.text_of(row.prompt), digits_count=True))

    def _as_marked(self, row: TrainingRow) -> TrainingRow:
        """The row with the answer that a person gave it."""
        mark = self._mark(row)
        if mark is None or not mark.gold or mark.answer == row.answer:
            return row
        return replace(row, completion=[*row.completion[:-1], self.form.turn(mark.answer)])

    def _fault(self, row: TrainingRow) -> Verdict | None:
        """Why a row is dropped: by a person, while it was written, or by the checks of its origin; None: it is kept."""
        mark = self._mark(row)
        if mark is not None and not mark.gold:
            return Verdict("marked", "a person dropped it")
        if mark is None and (problem := row.attributes.problem):
            return fault_of(problem)  # told while it was written, by code or by the reader
        if is_persons(row):
            return self._own_fault(row)
        return self._unsound(row) or self._leak(row) or self._duplicate(row)

    def _own_fault(self, row: TrainingRow) -> Verdict | None:
        """What keeps a person's row out; what code only doubts is noted."""
        fault = self.checks.own_fault(row) or token_fault(row, self.special_tokens)
        fault = fault or self._repeat(row) or self._leak(row)
        if fault is None:
            self._duplicate(row)  # it counts as seen: a written row that is like it goes
            self._doubt(row)
        return fault

    @property
    def borne_out(self) -> Spec:
        """The spec without the rules that were concluded from examples and that a row of a person's does not keep."""
        return self.spec.model_copy(update={"rules": tuple(r for r in self.spec.rules if r not in self.refuted)})

    def _doubt(self, row: TrainingRow) -> None:
        broken = self.checks.broken_guesses(row.answer)
        self.refuted += [rule for rule in broken if rule not in self.refuted]
        doubts = [Verdict(RULE, rule.says) for rule in broken]
        odd = text_fault(row, allowed=self.checks.allowed) or (None if broken else self.checks.fault(row))
        for doubt in (*doubts, *([odd] if odd else [])):
            self.doubts.add(row, doubt)

    def _repeat(self, row: TrainingRow) -> Verdict | None:
        if (other := self.repeats.contradicted.get(row.row_id)) and self.request.contradictory != "keep":
            return Verdict("contradiction", f"row {other} answers the same message otherwise")
        same = self.repeats.same.get(row.row_id)
        return Verdict("duplicate", f"it says what row {same} says") if same else None

    def _no_row(self, row: TrainingRow) -> Verdict | None:
        return conversation_fault(row) or token_fault(row, self.special_tokens)

    def _unsound(self, row: TrainingRow) -> Verdict | None:
        return self._no_row(row) or text_fault(row, allowed=self.checks.allowed) or self.checks.fault(row)

    def sound(self, row: TrainingRow) -> bool:
        """Whether a row is right by itself and gives no case of a suite away."""
        texts = row_texts(row, self.spec.text_of(row.prompt))
        return not self._unsound(row) and self.gate.check(row.row_id, texts) is None

    def _leak(self, row: TrainingRow) -> Verdict | None:
        texts = row_texts(row, self.spec.text_of(row.prompt))
        leak = self.gate.check(row.row_id, texts, digits_count=row.origin in ORDINARY)
        return self._leaked(leak) if leak else None

    def _leaked(self, leak: Leak) -> Verdict:
        self.leaks.append(leak)
        if leak.blind:
            self.blind_leaks.add(leak.row_id)
        return Verdict("leak", str(leak))

    def _embedded(self, rows: Sequence[TrainingRow], faults: dict[str, Verdict]) -> None:
        """Paraphrased cases, where the embedding model is installed."""
        if not rows or len(rows) > _EMBEDDED_MAX or not self.request.embeddings:
            return
        texts = [(row.row_id, self.spec.text_of(row.prompt)) for row in rows]
        with local_embedder() as embedder:
            for leak in self.gate.embedded(texts, embedder) if embedder else ():
                faults[leak.row_id] = self._leaked(leak)

    def _duplicate(self, row: TrainingRow) -> Verdict | None:
        """Why a row repeats an earlier one; one that repeats none counts as seen from here on."""
        answer = row.answer
        written = not self.form.composed and row.origin not in ORDINARY
        if written and len(answer) >= LONG_ANSWER_CHARS:
            first = self.answers.setdefault(answer.lower(), row.row_id)
            if first != row.row_id:
                return Verdict("copy", f"the answer is that of row {first}")
        exact = row.origin in ORDINARY or self.form.near_copies_differ
        text = self.spec.text_of(row.prompt)
        if like := self.seen.match(text, self.request.near_duplicate, digits_count=exact, contained=False):
            return Verdict("duplicate", f"{like.score:.0f} of 100 like row {like.name}")
        self.seen.add(row.row_id, text)
        return None


def split_of(row: TrainingRow, valid_share: float) -> str:
    """By hash of the row's prompt, so that a row stays where it is when others come or go."""
    digest = hashlib.sha256(json.dumps(row.prompt, sort_keys=True).encode()).digest()
    return "valid" if int.from_bytes(digest[:4]) < valid_share * 2**32 else "train"


def _with_values_at(form: AnswerForm, row: TrainingRow) -> TrainingRow:
    """The row with the places of its answer's values, for training; an ordinary answer or a call has none."""
    places = () if row.origin in ORDINARY else form.values_at(str(row.completion[-1].get("content") or ""))
    return replace(row, attributes=replace(row.attributes, values_at=places))


def _publish(
    job: Job[CritiqueRequest], base: Path, accepted: Sequence[TrainingRow], varied: Sequence[TrainingRow], dropped: str,
    counts: Mapping[str, int],
) -> Artifact:  # fmt: skip
    """The dataset: its splits, the variants beside them, and the counts that plans of training are made by."""
    folder = job.dir / "dataset"
    splits = {name: [row for row in accepted if row.split == name] for name in ("train", "valid")}
    if not splits["train"]:
        raise StepFailed(f"no row is left to train on: {dropped}")
    for name, rows in splits.items():
        write_rows(folder / f"{name}.jsonl", rows)
    if varied:
        write_rows(folder / VARIANTS, varied)
    meta = {
        **counts,
        "own_rows": sum(row.origin not in ORDINARY for row in accepted),
        "train_rows": len(splits["train"]),
        "valid_rows": len(splits["valid"]),
        "held_rows": sum(row.origin in ORDINARY for row in splits["train"]),
        "valued_rows": sum(bool(row.attributes.values_at) for row in splits["train"]),
        "varied_rows": len({row.attributes.variant_of for row in varied}),
        **row_tokens(base, accepted, varied),
    }
    return job.publish("dataset", folder, meta=meta)


def _result(
    judged: Sequence[TrainingRow], accepted: Sequence[TrainingRow], balance: Mapping[str, dict[str, int]],
    artifact: Artifact, leaks: int,
) -> CritiqueResult:  # fmt: skip
    """What became of every candidate."""
    kinds = Counter(row.verdict.kind for row in judged if row.verdict and not row.verdict.keeps)
    train = [row for row in accepted if row.split == "train"]
    return CritiqueResult(
        artifact=artifact.id,
        path=str(artifact.path),
        candidates=len(judged),
        kept=len(accepted),
        dropped=len(judged) - len(accepted),
        reasons=dict(kinds.most_common()),
        train_rows=len(train),
        valid_rows=len(accepted) - len(train),
        rehearsal_share=round(sum(row.origin in ORDINARY for row in train) / len(train), 3),
        balance=dict(balance),
        leaks=leaks,
    )


def special_tokens(base: Path) -> list[str]:
    """The tokens of a base that are no text, as they are written: those that begin and end a turn among them."""
    from transformers import AutoTokenizer

    added = AutoTokenizer.from_pretrained(base, local_files_only=True).added_tokens_decoder
    return [token.content for token in added.values() if token.special and token.content]


def row_tokens(base: Path, rows: Sequence[TrainingRow], varied: Sequence[TrainingRow] = ()) -> dict[str, int]:
    """Mean tokens of a row, and those of the longest, other forms included, as the base's own template renders it.

    Where turns are trained on apart, these are the rows, and `train_turns` is their number.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)

    def rendered(row: TrainingRow) -> str:
        chat = template_messages(tokenizer.chat_template, [*row.prompt, *row.completion])
        return str(tokenizer.apply_chat_template(chat, tokenize=False, tools=list(row.attributes.tools) or None))

    lengths: list[int] = []
    of_rows = [turn for row in rows for turn in turns_of(tokenizer, row)]
    every = [*of_rows, *(turn for row in varied for turn in turns_of(tokenizer, row))]
    for start in range(0, len(every), _AT_ONCE):
        texts = [rendered(row) for row in every[start : start + _AT_ONCE]]
        lengths += map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])
    apart = {"train_turns": sum(turn.split == "train" for turn in of_rows)} if len(of_rows) > len(rows) else {}
    mean = round(sum(lengths[: len(of_rows)]) / len(of_rows))
    return {"tokens_per_row": mean, "longest_row_tokens": max(lengths), **apart}
