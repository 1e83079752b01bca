"""What a person has to decide about a run's rows before any is trained on.

Rows whose labels nothing has read back: the writer drew a label and wrote a message for it; a reader that cannot tell
the label even in the user's examples has checked none of that. What a person marks of such rows decides; else a person
has to say that they are trained on.

Rows that repeat a case of a suite, and rows of a person's that contradict each other: counted before critique is
priced, by what texts alone say. Critique judges every row again, and finds paraphrases with an embedding model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from tunesmith.memory.confined import Limits, OverLimits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_list
from tunesmith.memory.marks import marks_in
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Inputs, PlanQuestion
from tunesmith.tools.core.stats import lower_bound, pass_rate_interval
from tunesmith.tools.data.balance import chosen
from tunesmith.tools.data.behaviour import behaviour_of_rows, load_behaviour
from tunesmith.tools.data.rows import ORDINARY, read_rows, repeats_in
from tunesmith.tools.data.spec_suites import HELD_OUT, HELD_OUT_NEAR
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.leakage import LeakGate, row_texts
from tunesmith.tools.suites.loading import read_suite

UnverifiedRows = Annotated[
    bool, Field(description="Go on with generated rows although nothing could check what they say of a label.")
]
ACCEPTED = "unverified_rows"
"""The field of a request, and what a data set records, that say: a person wants them trained on all the same."""
MARKS_LEAST, SHARE_LEAST = 15, 0.8
"""From so many marks on they decide: the lower bound of the share of right rows has to lie above this."""
_CONFIDENCE = 0.9
"""Of that bound, one-sided: a person can still say that rows are trained on all the same."""
_MARKS_ASKED = 20
"""One key each, so that a person is done in minutes."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """What is known of the rows that a run generated; `names` is empty where all was read back, or none was written."""

    run: str = ""
    behaviour: str = ""
    """Its folder."""
    names: tuple[str, ...] = ()
    """What the answers say and no reader could tell."""
    read_right: int = 0
    """Of the user's `examples`, so many were read right."""
    examples: int = 0
    rows: int = 0
    """Those that would be trained on."""
    marked_right: int = 0
    """Of the `marked` rows, so many were kept as they are by a person."""
    marked: int = 0
    judged: str = ""
    """The command that judges the rows anew by later marks, where they were judged already."""
    accepted: bool = False
    """Whether a person said already that they are trained on all the same."""

    @property
    def borne_out(self) -> bool:
        """Whether people's marks show that the rows are right."""
        if self.marked < MARKS_LEAST:
            return False
        every = self.marked == self.rows  # and what was wrong is dropped or put right
        return every or lower_bound(self.marked_right, self.marked, _CONFIDENCE) > SHARE_LEAST

    def stop(self, *, accepted: bool) -> tuple[tuple[str, ...], tuple[PlanQuestion, ...]]:
        """The refusal to train on them, and the question instead of it; both empty where nothing stands against it."""
        if not self.names or self.borne_out or accepted or self.accepted:
            return (), ()
        text = f"{self}. Rows of your own or a stronger writer would help.\nTrain on these rows all the same?"
        question = PlanQuestion(text=text, yes={ACCEPTED: True}, needs_person=True, rows_of=self.run)
        return (f"{self}; {self._remedies}",), (question,)

    def notes(self, *, accepted: bool) -> tuple[str, ...]:
        """What a plan says of them once they may be trained on."""
        if not self.names:
            return ()
        if self.borne_out:
            return (self.marks,)
        return (str(self),) if accepted or self.accepted else ()

    def __str__(self) -> str:
        marks = f"; {self.marks}" if self.marked else ""
        return (
            f"{', '.join(self.names)}: {self._reading}, so that nothing reliable has checked what the rows of "
            f"{self.run} say of it{marks}. A model learns what its rows say, the wrong ones too"
        )

    @property
    def _reading(self) -> str:
        if not self.examples:
            return "the reader could not tell it in your examples"
        return f"the reader was right in {self.read_right} of your {self.examples} examples"

    @property
    def marks(self) -> str:
        """What people's marks came to, with the interval of the share of right rows."""
        low, high = pass_rate_interval(self.marked_right, self.marked)
        return (
            f"a person marked {self.marked} of them and found {self.marked_right} right "
            f"({100 * low:.0f} to {100 * high:.0f} %)"
        )

    @property
    def _asked(self) -> str:
        """How many marks would be enough: of twenty how many right ones, or how many more if all of these are right."""

        def enough(right: int, marked: int) -> bool:
            return lower_bound(right, marked, _CONFIDENCE) > SHARE_LEAST

        if not self.marked:
            right = next(n for n in range(_MARKS_ASKED + 1) if n == _MARKS_ASKED or enough(n, _MARKS_ASKED))
            return f"{_MARKS_ASKED} of them ({right} right are enough)"
        left = max(1, self.rows - self.marked)
        first = max(1, MARKS_LEAST - self.marked)
        more = next((n for n in range(first, left) if enough(self.marked_right + n, self.marked + n)), left)
        return f"{more} more of them (enough if all of these are right)"

    @property
    def _remedies(self) -> str:
        run = self.run
        judged = f"`{self.judged}`, " if self.judged else ""
        return (
            f"what helps: mark {self._asked}, one key each (`tunesmith rows review --run {run}`, {judged}"
            f"then `tunesmith resume {run}`), bring rows of your own (`tunesmith teach "
            f"{self.behaviour} --rows mine.jsonl`; `tunesmith rows request {self.behaviour}` asks an assistant of "
            f"yours for them), let a stronger model write (`tunesmith teach {self.behaviour} "
            f"--writer MODEL`), or go on all the same: `tunesmith resume {run}` asks that in a terminal, and a request "
            f"says it with {ACCEPTED}=true"
        )


ALL_CHECKED = Unverified()


def unverified_of(store: Store, artifact: Artifact | None) -> Unverified:
    """What is known of rows, or of those that a data set was made of; marks as they are now."""
    dataset = artifact if artifact is not None and artifact.kind == "dataset" else None
    rows = store.ancestor(dataset, "rows") if dataset else artifact
    names = tuple(map(str, as_list(rows.meta.get("unverified") or []))) if rows else ()
    if rows is None or not names:
        return ALL_CHECKED
    trained = to_be_trained(store, rows)
    marks = [mark for mark in marks_in(store, rows.step) if mark.row_id in trained]
    right, examples = _reading_of(rows, names)
    return Unverified(
        run=rows.run,
        behaviour=str(rows.meta["behaviour"]),
        names=names,
        read_right=right,
        examples=examples,
        rows=len(trained),
        marked_right=sum(mark.gold and mark.answer == mark.was for mark in marks),
        marked=len(marks),
        judged=_critique_of(store, dataset) if dataset else "",
        accepted=bool(dataset and dataset.meta.get(ACCEPTED)),
    )


def to_be_trained(store: Store, rows: Artifact) -> frozenset[str]:
    """The ids of the rows of a generate step that are trained on as far as its records tell; of a behaviour that cannot
    be read any more, all that nothing is wrong with."""
    written = store.rows(rows.step)
    try:
        spec = load_behaviour(str(rows.meta["behaviour"]))
    except BadInput:  # its file is gone, or broken: what was written is judged by its own records
        return frozenset(row.row_id for row in written if row.origin == "generated" and not row.attributes.problem)
    return chosen(spec, written, int(str(rows.meta.get("asked", 0))))


def _critique_of(store: Store, dataset: Artifact) -> str:
    """As it was asked for, so that as many rows become cases again."""
    count = int(str(store.step(dataset.step).request.get("held_out", 0)))
    return f"tunesmith critique --run {dataset.run}" + (f" --held-out {count}" if count else "")


def _reading_of(rows: Artifact, names: tuple[str, ...]) -> tuple[int, int]:
    """Of the user's examples, how many the reader read right of what it reads worst, and how many there are; 0 and 0
    where no record says it."""
    try:
        trust = json.loads((rows.path / "reader.json").read_text())["trust"]
        examples = len(load_behaviour(str(rows.meta["behaviour"])).examples)
    # A data set of an earlier version, or a behaviour that is gone: then there is nothing to tell.
    except (OSError, ValueError, KeyError, BadInput):
        return 0, 0
    return round(min(trust["labels"].get(name, trust["answers"]) for name in names) * examples), examples


_HELD_OUT_SUITES = tuple(Path(name).stem for name in (HELD_OUT, HELD_OUT_NEAR))
_LIMITS = Limits(cpu_s=4.0, memory_bytes=1 << 30)
"""A plan waits for this child; what takes longer is left to critique."""
_MOST_COMPARISONS = 1_000_000
"""Rows times cases that are counted while a person waits for a price."""


class Undecided(NamedTuple):
    """Rows of a run that somebody has to decide about."""

    leaks: int = 0
    """Give a case of a suite away."""
    contradicted: int = 0
    """Answer a message that another row of the person's answers otherwise."""
    of: int = 0

    @property
    def leaking(self) -> str:
        """The rows that leak in words; empty where none does."""
        repeat = "repeats" if self.leaks == 1 else "repeat"
        return f"{self.leaks} of {self.of} rows {repeat} a test case" if self.leaks else ""

    @property
    def contradicting(self) -> str:
        """The same of rows that contradict each other."""
        if not self.contradicted:
            return ""
        return f"{self.contradicted} of {self.of} rows answer a message that another row answers otherwise"


ALL_DECIDED = Undecided()


def gate_cases(named: Iterable[Case], suite: Artifact | None) -> list[Case]:
    """Every case of the named suites and of the run's own, but for those that are rows: they are held out."""
    own = read_suite(suite.path).cases if suite else ()
    return [*named, *(case for case in own if case.suite not in _HELD_OUT_SUITES)]


def undecided_in(inputs: Inputs, named: Iterable[Case], threshold: float) -> Undecided:
    """The rows of a run that repeat a case of these or of its own suite, and that contradict each other; as far as
    they can be counted while a person waits."""
    rows = inputs.existing("rows")
    if rows is None:
        return ALL_DECIDED
    cases = gate_cases(named, inputs.existing("suite"))
    if len(cases) * rows.count("rows") > _MOST_COMPARISONS:
        cases = []
    argument = {
        "rows": str(rows.path / "rows.jsonl"),
        "behaviour": str(rows.meta["behaviour"]),
        "threshold": threshold,
        "cases": [case.model_dump(mode="json", include={"case_id", "suite", "messages", "vars"}) for case in cases],
    }
    try:
        return _counted(rows.sha256, str(rows.meta.get("behaviour_sha256")), json.dumps(argument))
    except (BadInput, OverLimits):  # critique itself says what is wrong with them
        return ALL_DECIDED


@lru_cache(maxsize=8)
def _counted(rows_sha256: str, behaviour_sha256: str, argument: str) -> Undecided:
    """Once for rows, behaviour and cases: a step is priced several times on its way to its worker."""
    return Undecided(*confined_answer(count_undecided, json.loads(argument), "the rows", _LIMITS))


def count_undecided(argument: Mapping[str, Any]) -> Iterator[Undecided]:
    """The child's side."""
    rows = read_rows(Path(argument["rows"]))
    spec = behaviour_of_rows(argument["behaviour"], rows)
    gate = LeakGate(map(Case.model_validate, argument["cases"]), spec.slot, argument["threshold"])
    texts = ((row, row_texts(row, spec.text_of(row.prompt))) for row in rows)
    leaks = sum(gate.check(row.row_id, own, digits_count=row.origin in ORDINARY) is not None for row, own in texts)
    yield Undecided(leaks, len(repeats_in(rows).contradicted), len(rows))
