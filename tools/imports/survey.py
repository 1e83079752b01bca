"""A look at all rows that a person brings, before a training on them is planned.

Every row is read in a confined child; what reaches the caller is counts and a few rows as examples. `count` and
`compare` are the child's side; `survey` and `against` start it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tunesmith.memory.confined import Limits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.record_files import PREVIEW_RECORDS
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.rows import repeats_in
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.imports.formats import Problem
from tunesmith.tools.imports.sources import CHILD_BYTES, MAX_IMPORT_BYTES, Stopped, take, taken
from tunesmith.tools.suites.case import Case

ROWS_LEAST = 10
"""Different rows from which a training without written rows is worth its price."""
_EXAMPLES_MOST, _EXAMPLES_SHARE, _EXAMPLE_CHARS = 12, 4, 4_000
"""Rows that a behaviour is shown by where rows alone show it, at most a fourth of them, and none that is longer."""
_LABELS_MOST, _LABEL_COMES, _LABEL_CHARS = 20, 3, 40
"""A choice has so many answers at most, each so often on average, and so long."""
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

    @property
    def argument(self) -> dict[str, object]:
        """As the child gets it."""
        most = 2 * MAX_IMPORT_BYTES
        files = list(map(str, self.files))
        return {"files": files, "mapping": dict(self.mapping), "limit": self.limit, "most_bytes": most}


class Survey(NamedTuple):
    """What a person's rows are, all sources together."""

    rows: int
    unusable: int
    """Records that are no rows."""
    problem: str
    """The first of them, with the reason."""
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
    askable: int
    """Rows that can be asked as blind cases: in the behaviour's own form, and shown to nobody."""
    repeated: tuple[str, ...]
    """Messages of the behaviour's examples that are among the rows."""


def survey(sources: Sequence[RowsSource]) -> Survey:
    """Read all rows. Raises BadInput for what cannot be read, or holds more than is taken."""
    fields = confined_answer(count, [source.argument for source in sources], _named(sources), _limits(sources))
    examples = tuple(map(Example.model_validate, fields.pop("examples")))
    lists = {name: tuple(fields[name]) for name in ("contradicted", "labels")}
    return Survey(**{**fields, **lists}, examples=examples)


def against(sources: Sequence[RowsSource], spec: Spec, cases: Sequence[Case]) -> Against:
    """Hold all rows against the rules that were concluded for `spec`, and against cases. Raises BadInput."""
    argument = {
        "sources": [source.argument for source in sources],
        "spec": spec.model_dump_json(),
        "cases": [case.model_dump(mode="json", include={"case_id", "suite", "messages", "vars"}) for case in cases],
    }
    fields = confined_answer(compare, argument, _named(sources), _limits(sources))
    return Against(**{**fields, "repeated": tuple(fields["repeated"])})


def _named(sources: Sequence[RowsSource]) -> str:
    return ", ".join(str(source.files[0]) for source in sources)


def _limits(sources: Sequence[RowsSource]) -> Limits:
    bytes_ = sum(file.stat().st_size for source in sources for file in source.files)
    return Limits(_BASE_S + bytes_ / 1e6 * _S_PER_MB, CHILD_BYTES)


# In the child


def _rows(sources: Sequence[Mapping[str, Any]]) -> Iterator[TrainingRow | str]:
    """The rows of all sources, each named by its file and record; of a record that is none what is wrong with it."""
    for source in sources:
        name = Path(source["files"][0]).name
        try:
            for one in taken(take(source)):
                if isinstance(one, TrainingRow):
                    yield replace(one, row_id=f"{name}:{one.attributes.number}")
                elif isinstance(one, Problem):
                    yield f"{name}, {one}"
        except Stopped as error:
            raise BadInput(f"{name}: {error}") from None


def count(argument: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
    """What there is."""
    read = list(_rows(argument))
    rows = [row for row in read if isinstance(row, TrainingRow)]
    problems = [row for row in read if isinstance(row, str)]
    repeats = repeats_in(rows)
    different = [row for row in rows if row.row_id not in repeats.same]
    answers = [str(turn.get("content") or "") for row in rows for turn in row.completion]
    yield {
        "rows": len(rows),
        "unusable": len(problems),
        "problem": problems[0] if problems else "",
        "same": len(repeats.same),
        "contradicted": list(repeats.contradicted),
        "longest_answer": max(map(len, answers), default=0),
        "labels": _labels([row.answer for row in different]),
        "examples": _examples([row for row in different if row.row_id not in repeats.contradicted]),
    }


def _labels(answers: Sequence[str]) -> list[str]:
    """The answers where they are a choice: a few short ones that come again and again."""
    counts = Counter(answers)
    few = 2 <= len(counts) <= _LABELS_MOST and len(answers) >= _LABEL_COMES * len(counts)
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
    from tunesmith.tools.data.similarity import LEAK, LeakGate, row_texts

    spec = Spec.model_validate_json(argument["spec"])
    checks = BehaviourChecks(spec, [])
    rows = [row for row in _rows(argument["sources"]) if isinstance(row, TrainingRow)]
    cases = [Case.model_validate(case) for case in argument["cases"]]
    gate = LeakGate(cases if len(cases) * len(rows) <= _MOST_COMPARISONS else [], spec.slot, LEAK)
    broken: Counter[str] = Counter()
    examples = {normal(example.prompt, digits_count=True): example.prompt for example in spec.examples}
    form, unformed, leaking, repeated = form_of(spec), 0, 0, set[str]()
    for row in rows:
        message = spec.text_of(row.prompt)
        repeated |= {examples[text]} if (text := normal(message, digits_count=True)) in examples else set()
        unformed += form.composed and form.parse(row.answer) is None
        broken.update(rule.says for rule in checks.broken_guesses(row.answer))
        leaking += gate.check(row.row_id, row_texts(row, message)) is not None
    seen = visible_rows(spec, rows)
    askable = sum(can_be_asked(spec, row) and row.row_id not in seen for row in rows)
    counts = {"broken": dict(broken), "unformed": unformed, "leaking": leaking}
    yield {**counts, "askable": askable, "repeated": sorted(repeated)}
