"""critique at work: a verdict and a reason for every candidate row, and the dataset of those that are kept.

Deterministic and without a model: the same candidates, behaviour and suites give the same dataset. Not covered:
whether a text is good prose, or that it means what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import KEEP, Artifact, TrainingRow, Verdict
from tunesmith.tools.core.job import Job
from tunesmith.tools.data.attributes import Attributes, answer_of
from tunesmith.tools.data.behaviour import AnyBehaviour, Behaviour, load_behaviour
from tunesmith.tools.data.critique import CritiqueRequest, CritiqueResult
from tunesmith.tools.data.example_behaviour import ExampleBehaviour
from tunesmith.tools.data.example_critique import Judge, balance_examples, described_judges, why_dropped
from tunesmith.tools.data.row_file import read_rows, write_rows
from tunesmith.tools.data.similarity import Likeness, loops
from tunesmith.tools.data.text_synthesis import problems
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response, asks_model, grade
from tunesmith.tools.suites.loading import load_named_suites, read_suite

_SAMPLES = 3


def run(job: Job[CritiqueRequest]) -> CritiqueResult:
    """Judge every candidate, record the verdicts, publish the dataset."""
    rows_artifact = job.verified("rows")
    behaviour = load_behaviour(rows_artifact.meta["behaviour"])
    if behaviour.sha256 != rows_artifact.meta["behaviour_sha256"]:
        raise StepFailed(f"{rows_artifact.meta['behaviour']} changed since its rows were made; run generate again")
    candidates = sorted(read_rows(rows_artifact.path / "rows.jsonl"), key=lambda row: row.row_id)
    judges = _judges(behaviour, _cases(job), job.request)
    judged = []
    for number, row in enumerate(candidates, 1):
        verdict = next(filter(None, (judge(row) for judge in judges)), Verdict(KEEP))
        judged.append(replace(row, verdict=verdict, split=_split(row, job.request.valid_share)))
        job.progress(number, len(candidates), "judging")
    for row in judged:
        assert row.verdict is not None
        job.store.judge_row(rows_artifact.step, row.row_id, row.verdict, row.split)
    kept = [row for row in judged if row.kept]
    told = why_dropped(judged, job.run)
    balance = balance_examples(kept, told) if isinstance(behaviour, ExampleBehaviour) else _balance(behaviour, kept)
    return _result(job, judged, kept, balance, _publish(job, kept, told))


def _cases(job: Job[CritiqueRequest]) -> list[Case]:
    """Every case of the named suites and of the run's own."""
    cases = list(load_named_suites(job.request.suites).cases) if job.request.suites else []
    return cases + (list(read_suite(job.verified("suite").path).cases) if "suite" in job.inputs else [])


def _judges(behaviour: AnyBehaviour, cases: Sequence[Case], request: CritiqueRequest) -> list[Judge]:
    """What is asked of a row, in this order; the duplicates last, so that only kept rows count as seen."""
    target = [case for case in cases if case.block == "target"]
    if isinstance(behaviour, ExampleBehaviour):
        held = described_judges(behaviour)
    else:
        held = [_AnswerForm(behaviour, target), lambda row: _contradiction(behaviour, row), _forgetful(behaviour)]
    return [_broken, *held, _Leak(behaviour, cases, request.leak), _Duplicate(behaviour, request.near_duplicate)]


def text_of(behaviour: AnyBehaviour, row: TrainingRow) -> str:
    """A row's own text: what the behaviour's prompt is around, or the whole prompt of a rehearsal row."""
    content = row.prompt[-1]["content"]
    before, _, after = behaviour.prompt.partition("{{" + behaviour.slot + "}}")
    return content.removeprefix(before).removesuffix(after)


def _broken(row: TrainingRow) -> Verdict | None:
    answer = row.completion[0]["content"] if row.completion else ""
    if not answer.strip():
        return Verdict("empty", "there is no answer")
    if row.attributes.get("finish_reason") == "length" and row.origin != "rehearsal":
        return Verdict("cut off", "the answer met the token limit")
    return Verdict("loop", "the answer repeats itself") if row.origin == "rehearsal" and loops(answer) else None


class _AnswerForm:
    """The answer obeys the behaviour's schema, is one line, and passes what every target case asserts alike."""

    def __init__(self, behaviour: Behaviour, target: Sequence[Case]) -> None:
        self.behaviour = behaviour
        self.schema = jsonschema.Draft202012Validator(behaviour.answer)
        shared = [a for a in target[0].assertions if all(a in case.assertions for case in target)] if target else []
        shared = [a for a in shared if not asks_model([a])]  # a form is nothing that a model has to judge
        self.case = target[0].model_copy(update={"assertions": tuple(shared), "threshold": None}) if shared else None

    def __call__(self, row: TrainingRow) -> Verdict | None:
        if row.origin == "rehearsal":
            return None
        answer = row.completion[0]["content"]
        try:
            value = json.loads(answer)
        except ValueError as error:
            return Verdict("schema", f"the answer is not JSON ({error})")
        if broken := next(iter(self.schema.iter_errors(value)), None):
            return Verdict("schema", f"{broken.message[:120]}")
        if "\n" in answer or tuple(value) != self.behaviour.keys:
            return Verdict("schema", "the answer is not one line with the keys in order")
        if len(str(value[self.behaviour.summary_field]).split()) > self.behaviour.summary_words_max:
            return Verdict("schema", f"the summary has more than {self.behaviour.summary_words_max} words")
        grade_ = grade(self.case, Response(text=answer)) if self.case else None
        return Verdict("suite form", grade_.reason[:120]) if grade_ and not grade_.passed else None


def _contradiction(behaviour: Behaviour, row: TrainingRow) -> Verdict | None:
    """Label and text disagree, or the label is not the one that was drawn."""
    if row.origin == "rehearsal":
        return None
    attributes = Attributes.of(row.attributes)
    if row.completion[0]["content"] != answer_of(behaviour, attributes):
        return Verdict("label", "the answer is not the one that was drawn")
    return next(iter(problems(behaviour, attributes, text_of(behaviour, row))), None)


def _forgetful(behaviour: Behaviour) -> Judge:
    """A rehearsal answer that looks like the behaviour would teach it where it must not show."""
    keys = [f'"{key}"' for key in behaviour.keys]
    return lambda row: (
        Verdict("form", "an ordinary answer in the form of the behaviour")
        if row.origin == "rehearsal" and all(key in row.completion[0]["content"] for key in keys)
        else None
    )


class _Leak:
    """The text is, or nearly is, what a case of a suite asks."""

    def __init__(self, behaviour: AnyBehaviour, cases: Iterable[Case], threshold: float) -> None:
        self.behaviour, self.threshold = behaviour, threshold
        asked = [(case.case_id, _asked(behaviour, case)) for case in cases]
        self.names, self.texts = [name for name, _ in asked], Likeness([text for _, text in asked])

    def __call__(self, row: TrainingRow) -> Verdict | None:
        place, score = self.texts.nearest(text_of(self.behaviour, row), digits_count=row.origin == "rehearsal")
        return Verdict("leak", f"{score:.0f} of 100 like case {self.names[place]}") if score >= self.threshold else None


def _asked(behaviour: AnyBehaviour, case: Case) -> str:
    if isinstance(text := case.vars.get(behaviour.slot), str):
        return text
    content = case.messages[-1].get("content")
    return content if isinstance(content, str) else json.dumps(content)


class _Duplicate:
    """The text is, or nearly is, that of a row before it."""

    def __init__(self, behaviour: AnyBehaviour, threshold: float) -> None:
        self.behaviour, self.threshold = behaviour, threshold
        self.names: list[str] = []
        self.texts = Likeness([])

    def __call__(self, row: TrainingRow) -> Verdict | None:
        text = text_of(self.behaviour, row)
        place, score = self.texts.nearest(text, digits_count=row.origin == "rehearsal")
        if score >= self.threshold:
            return Verdict("duplicate", f"{score:.0f} of 100 like row {self.names[place]}")
        self.names.append(row.row_id)
        self.texts.add(text)
        return None


def _split(row: TrainingRow, valid_share: float) -> str:
    """By hash of the row's prompt, so that a row stays where it is when others come or go."""
    digest = hashlib.sha256(json.dumps(row.prompt, sort_keys=True).encode()).digest()
    return "valid" if int.from_bytes(digest[:4]) < valid_share * 2**32 else "train"


def _balance(behaviour: Behaviour, kept: Sequence[TrainingRow]) -> dict[str, dict[str, int]]:
    """Kept rows by value of the group and the cue, and with or without a reference. Raises StepFailed for none."""
    labels = [json.loads(row.completion[0]["content"]) for row in kept if row.origin == "generated"]
    balance: dict[str, dict[str, int]] = {}
    for field_name, values in ((behaviour.group_field, behaviour.scenarios), (behaviour.cue_field, behaviour.cues)):
        counts = Counter(label[field_name] for label in labels)
        balance[field_name] = {value: counts[value] for value in values}
        if absent := [value for value in values if not counts[value]]:
            raise StepFailed(f"no kept row has {field_name}={absent[0]}: nothing would teach it; generate more rows")
    absent_count = sum(label[behaviour.reference_field] is None for label in labels)
    balance[behaviour.reference_field] = {"given": len(labels) - absent_count, "null": absent_count}
    return balance


def _publish(job: Job[CritiqueRequest], kept: Sequence[TrainingRow], told: str) -> Artifact:
    folder = job.dir / "dataset"
    splits = {name: [row for row in kept if row.split == name] for name in ("train", "valid")}
    if not splits["train"]:
        raise StepFailed(f"no row is left to train on: {told}")
    for name, rows in splits.items():
        write_rows(folder / f"{name}.jsonl", rows)
    meta = {
        "train_rows": len(splits["train"]),
        "valid_rows": len(splits["valid"]),
        "tokens_per_row": _tokens_per_row(job.verified("base").path, kept),
    }
    return job.publish("dataset", folder, meta=meta)


def _tokens_per_row(base: Path, rows: Sequence[TrainingRow]) -> int:
    """Mean tokens of a row as the base's own template renders it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    chats: list[Any] = [[*row.prompt, *row.completion] for row in rows]
    rendered = tokenizer.apply_chat_template(chats, tokenize=False)
    return round(sum(len(ids) for ids in tokenizer(rendered, add_special_tokens=False)["input_ids"]) / len(rows))


def _result(
    job: Job[CritiqueRequest],
    judged: Sequence[TrainingRow],
    kept: Sequence[TrainingRow],
    balance: dict[str, dict[str, int]],
    artifact: Artifact,
) -> CritiqueResult:
    kinds: dict[str, list[str]] = {}
    for row in judged:
        if row.verdict and not row.verdict.keeps:
            kinds.setdefault(row.verdict.kind, []).append(row.row_id)
    train = [row for row in kept if row.split == "train"]
    by_group = {_group_of(r, next(iter(balance))): r.row_id for r in kept if r.origin == "generated"}
    return CritiqueResult(
        artifact=artifact.id,
        path=str(artifact.path),
        candidates=len(judged),
        kept=len(kept),
        dropped=len(judged) - len(kept),
        reasons={kind: len(ids) for kind, ids in sorted(kinds.items(), key=lambda item: -len(item[1]))},
        train_rows=len(train),
        valid_rows=len(kept) - len(train),
        rehearsal_share=round(sum(row.origin == "rehearsal" for row in train) / len(train), 3),
        balance=balance,
        sample_kept=tuple(by_group.values()),
        sample_dropped={kind: tuple(ids[:_SAMPLES]) for kind, ids in kinds.items()},
    )


def _group_of(row: TrainingRow, field_name: str) -> str:
    """What a row stands for in the sample: a value of its answer, or what was drawn for it."""
    drawn = row.attributes.get(field_name)
    return str(json.loads(row.completion[0]["content"])[field_name] if drawn is None else drawn)
