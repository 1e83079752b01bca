"""A look at all rows that a person brings, before a training on them is planned.

Every row is read in a confined child; what reaches the caller is counts and a few rows as examples. `count`,
`compare` and `find` are the child's side; `survey`, `against` and `asking_cases` start it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tunesmith.memory.confined import Limits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.core.record_files import PREVIEW_RECORDS
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.rows import repeats_in, secret_fault
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.imports.formats import Problem
from tunesmith.tools.imports.sources import (
    CHILD_BYTES,
    MAX_IMPORT_BYTES,
    NewFile,
    Stopped,
    file_names,
    take,
    typed_items,
)
from tunesmith.tools.suites.case import Case

ROWS_LEAST = 10
"""Different rows from which a training without written rows is worth its price."""
_EXAMPLES_MOST, _EXAMPLES_SHARE, _EXAMPLE_CHARS = 12, 4, 4_000
"""Rows that a behaviour is shown by where rows alone show it, at most a fourth of them, and none that is longer: the
others are trained on, which teaches more."""
_LABELS_MOST, _LABEL_COMES, _LABEL_CHARS = 20, 3, 40
"""A choice has so many answers at most, each so often on average, and so long: else it is free text, and no value of a
label."""
_BASE_S, _S_PER_MB = 20.0, 0.7
"""CPU time of the child, as for an import (`sources`), with what comparing the rows takes."""
_MOST_COMPARISONS = 2_000_000
"""Rows times cases that are compared while a person waits; critique compares all."""


@dataclass(frozen=True, slots=True)
class RowsSource:
    """A file or folder of rows, and how its columns are read."""

    files: tuple[Path, ...]
    mapping: Mapping[str, str]
    limit: int
    name: str
    """As the person named it."""

    @property
    def argument(self) -> dict[str, object]:
        """As the child gets it."""
        most = 2 * MAX_IMPORT_BYTES
        files = list(map(str, self.files))
        read = {"files": files, "mapping": dict(self.mapping), "limit": self.limit, "most_bytes": most}
        return {"source": self.name, **read}


class Survey(NamedTuple):
    """What a person's rows are, all sources together."""

    rows: int
    unusable: int
    """Records that are no rows."""
    problem: str
    """The first of them, with the reason."""
    more: tuple[str, ...]
    """Sources that hold records beyond the limit."""
    same: int
    """Rows that say what another one says."""
    contradicted: tuple[str, ...]
    """Rows that answer a message that another row answers otherwise, by their places."""
    longest_answer: int
    """Characters."""
    labels: tuple[str, ...]
    """The answers, where they are a choice of few short ones."""
    examples: tuple[Example, ...]
    """A few that show the others: the first ones, and those with other answers."""

    @property
    def different(self) -> int:
        """Rows that say something of their own."""
        return self.rows - self.same


class Against(NamedTuple):
    """Rows held against a behaviour and against test cases."""

    broken: Mapping[str, int]
    """Rule that was concluded from examples → rows that do not keep it."""
    unformed: int
    """Rows whose answer is not of the form that the behaviour's examples have."""
    leaking: int
    """Rows that repeat a test case."""
    left_out: tuple[str, ...]
    """Why rows are left out that neither repeat nor contradict another one nor are test cases: how many, with one."""
    lost: int
    """All rows that are left out though they say something of their own."""
    askable: int
    """Rows that can be asked as blind cases: kept, in the behaviour's own form, and shown to nobody."""
    repeated: tuple[str, ...]
    """Messages of the behaviour's examples that are among the rows."""


def survey(sources: Sequence[RowsSource]) -> Survey:
    """Read all rows. Raises BadInput for what cannot be read, or holds more than is taken."""
    fields = confined_answer(count, [source.argument for source in sources], _named(sources), _limits(sources))
    examples = tuple(map(Example.model_validate, fields.pop("examples")))
    lists = {name: tuple(fields[name]) for name in ("contradicted", "labels", "more")}
    return Survey(**{**fields, **lists}, examples=examples)


def against(sources: Sequence[RowsSource], spec: Spec, cases: Sequence[Case], *, contradicted: bool = False) -> Against:
    """Hold all rows against the rules of `spec`, and against cases. Raises BadInput.

    `contradicted`: rows that contradict another one are kept.
    """
    argument = {
        "sources": [source.argument for source in sources],
        "spec": spec.model_dump_json(),
        "contradicted": contradicted,
        "cases": [case.model_dump(mode="json", include={"case_id", "suite", "messages", "vars"}) for case in cases],
    }
    fields = confined_answer(compare, argument, _named(sources), _limits(sources))
    return Against(**{**fields, **{name: tuple(fields[name]) for name in ("repeated", "left_out")}})


def asking_cases(sources: Sequence[RowsSource], cases: Sequence[Case]) -> tuple[str, ...]:
    """The rows whose last message is that of a case, word for word, by their places. Raises BadInput."""
    known = {_digest(text) for case in cases for text in _asked(case)}
    argument = {"sources": [source.argument for source in sources], "known": sorted(known)}
    return tuple(confined_answer(find, argument, _named(sources), _limits(sources)))


def _asked(case: Case) -> Iterator[str]:
    """The message of a case, and the text that its prompt was put around."""
    yield str(case.messages[-1].get("content") or "") if case.messages else ""
    yield from (value for value in case.vars.values() if isinstance(value, str))


def _digest(text: str) -> str:
    return sha256(normal(text, digits_count=True).encode()).hexdigest()


def _named(sources: Sequence[RowsSource]) -> str:
    return ", ".join(str(source.files[0]) for source in sources)


def _limits(sources: Sequence[RowsSource]) -> Limits:
    bytes_ = sum(file.stat().st_size for source in sources for file in source.files)
    return Limits(_BASE_S + bytes_ / 1e6 * _S_PER_MB, CHILD_BYTES)


# In the child


class _Read(NamedTuple):
    """All that the sources hold, in their order."""

    rows: list[TrainingRow]
    """By ids that no other row has; a record has its name in its own source only."""
    names: dict[str, str]
    """Id → the file and the place in it."""
    problems: list[str]
    more: list[str]


def _read(sources: Sequence[Mapping[str, Any]]) -> _Read:
    """The rows of all sources, and what is wrong with the records that are none. Raises BadInput."""
    read = _Read([], {}, [], [])
    titles = file_names([Path(source["files"][0]) for source in sources])
    for source, title in zip(sources, titles, strict=True):
        named = title or Path(source["files"][0]).name
        several = len(source["files"]) > 1
        file, before = file_names(list(map(Path, source["files"])))[0] or named, 0
        try:
            for one in typed_items(take(source)):
                if isinstance(one, NewFile):
                    file, before = one
                elif isinstance(one, Problem):
                    read.problems.append(f"{'' if several else f'{named}, '}{one}")
                elif isinstance(one, TrainingRow):
                    row_id = str(len(read.rows))
                    read.names[row_id] = f"{file}:{(one.attributes.number or 0) - before}"
                    read.rows.append(replace(one, row_id=row_id))
                elif one.more:
                    read.more.append(str(source["source"]))
        except Stopped as error:
            raise BadInput(f"{source['source']}: {error}") from None
    return read


def count(argument: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
    """What there is."""
    read = _read(argument)
    rows, repeats = read.rows, repeats_in(read.rows)
    different = [row for row in rows if row.row_id not in repeats.same]
    answers = [str(turn.get("content") or "") for row in rows for turn in row.completion]
    own = [row for row in different if row.row_id not in repeats.contradicted]
    yield {
        "rows": len(rows),
        "unusable": len(read.problems),
        "problem": read.problems[0] if read.problems else "",
        "more": read.more,
        "same": len(repeats.same),
        "contradicted": [read.names[row_id] for row_id in repeats.contradicted],
        "longest_answer": max(map(len, answers), default=0),
        "labels": _labels(different),
        # What shows the behaviour is kept in its file, and shows what is allowed: no key.
        "examples": _examples([row for row in own if not secret_fault(row, allowed=frozenset())]),
    }


def find(argument: Mapping[str, Any]) -> Iterator[list[str]]:
    """The places of the rows whose last message has a known digest."""
    read, known = _read(argument["sources"]), {*argument["known"]} - {_digest("")}
    yield [read.names[row.row_id] for row in read.rows if _digest(str(row.prompt[-1].get("content") or "")) in known]


def _labels(rows: Sequence[TrainingRow]) -> list[str]:
    """The answers where they are a choice: a few short ones that come again and again, each all that is answered."""
    if any(len(row.completion) > 1 or row.completion[0].get("tool_calls") for row in rows):
        return []
    counts = Counter(row.answer for row in rows)
    few = 2 <= len(counts) <= _LABELS_MOST and len(rows) >= _LABEL_COMES * len(counts)
    short = all(len(answer) <= _LABEL_CHARS and "\n" not in answer for answer in counts)
    return list(counts) if few and short else []


def _examples(rows: Sequence[TrainingRow]) -> list[dict[str, object]]:
    """A few rows that show the others: the first, then such that words that many answers have are each seen once."""
    examples = [example for row in rows if (example := _example(row))]
    words = [set(example.answer.split()) for example in examples]
    counts = Counter(word for own in words for word in own)
    lacking = {word for word, holders in counts.items() if holders > 1}
    chosen = list(range(min(PREVIEW_RECORDS, len(examples))))
    lacking -= {word for place in chosen for word in words[place]}
    while lacking and len(chosen) < min(
        _EXAMPLES_MOST, len(examples) // _EXAMPLES_SHARE
    ):  # what is shown is never blind
        chosen.append(max(range(len(examples)), key=lambda place: len(lacking & words[place])))
        lacking -= words[chosen[-1]]
    return [examples[place].model_dump(mode="json") for place in chosen]


def _example(row: TrainingRow) -> Example | None:
    """A row as an example, its first answer the one that is taught; None for one that could be none."""
    if sum(len(str(turn.get("content") or "")) for turn in (*row.prompt, row.completion[0])) > _EXAMPLE_CHARS:
        return None
    try:
        return Example.model_validate({"messages": [*row.prompt, row.completion[0]], "tools": row.attributes.tools})
    except ValidationError:
        return None


def compare(argument: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """What rows break and repeat."""
    # Imported here, so that a child that only counts starts in a third of the time.
    from tunesmith.tools.data.answer_form import form_of
    from tunesmith.tools.data.held_out import can_be_asked, visible_rows
    from tunesmith.tools.data.row_checks import BehaviourChecks
    from tunesmith.tools.suites.leakage import LEAK, LeakGate, row_texts

    spec = Spec.model_validate_json(argument["spec"])
    checks = BehaviourChecks(spec, [])
    read = _read(argument["sources"])
    rows, repeats = read.rows, repeats_in(read.rows)
    again = {*repeats.same, *(() if argument["contradicted"] else repeats.contradicted)}
    cases = [Case.model_validate(case) for case in argument["cases"]]
    gate = LeakGate(cases if len(cases) * len(rows) <= _MOST_COMPARISONS else [], spec.slot, LEAK)
    broken: Counter[str] = Counter()
    examples = {normal(example.prompt, digits_count=True): example.prompt for example in spec.examples}
    form, unformed, leaking, repeated = form_of(spec), 0, set[str](), set[str]()
    faults: dict[str, Verdict] = {}
    for row in rows:
        message = spec.text_of(row.prompt)
        repeated |= {examples[text]} if (text := normal(message, digits_count=True)) in examples else set()
        unformed += form.composed and form.parse(row.answer) is None
        broken.update(rule.says for rule in checks.broken_guesses(row.answer))
        if gate.check(row.row_id, row_texts(row, message)) is not None:
            leaking.add(row.row_id)
        if row.row_id not in again and (fault := checks.own_fault(row)):
            faults[row.row_id] = fault
    kinds = Counter(fault.kind for fault in faults.values())
    # reversed: the first of a kind stays
    firsts = {fault.kind: f"{read.names[row_id]}: {fault.reason}" for row_id, fault in reversed(faults.items())}
    usable = [row for row in rows if row.row_id not in again | leaking | faults.keys()]
    seen = visible_rows(spec, rows)
    yield {
        "broken": dict(broken),
        "unformed": unformed,
        "leaking": len(leaking),
        "left_out": [f"{n} of {len(rows)} rows are left out, such as {firsts[kind]}" for kind, n in kinds.items()],
        "lost": len(rows) - len(again) - len(usable),
        "askable": sum(can_be_asked(spec, row) and row.row_id not in seen for row in usable),
        "repeated": sorted(repeated),
    }
