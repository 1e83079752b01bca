"""A person's rows looked at before their training is planned: how many there are, what they show, what is wrong.

Every row is read, in a confined child; what reaches the caller is counts and a few rows as examples. `count` and
`compare` are the child's side; `survey` and `against` start it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.memory.confined import Limits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.behaviour_checks import BehaviourChecks
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.import_formats import SHOWN
from tunesmith.tools.data.import_reading import CHILD_BYTES, MAX_TAKEN_BYTES, take
from tunesmith.tools.data.leakage import LeakGate, row_texts
from tunesmith.tools.data.own_rows import repeats_in
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.suites.case import Case

_EXAMPLES_MOST, _EXAMPLE_CHARS = 12, 4_000
"""That a behaviour is shown by, where rows alone show it; longer ones make every request long."""
_BASE_S, _S_PER_MB = 20.0, 0.7
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
        most = 2 * MAX_TAKEN_BYTES
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
    askable: int
    """Different rows of one message and one answer, which can be asked as test cases."""
    longest_answer: int
    """Characters."""
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
    leaking: int
    """Rows that repeat a test case."""
    shown: tuple[str, ...]
    """Messages of the behaviour's examples that are among the rows."""


def survey(sources: Sequence[RowsSource]) -> Survey:
    """Read all rows. Raises BadInput for what cannot be read, or holds more than is taken."""
    made = confined_answer(count, [source.argument for source in sources], _named(sources), _limits(sources))
    examples = tuple(Example(**example) for example in made.pop("examples"))
    return Survey(**{**made, "contradicted": tuple(made["contradicted"])}, examples=examples)


def against(sources: Sequence[RowsSource], spec: Spec, cases: Sequence[Case]) -> Against:
    """Hold all rows against the rules that were concluded for `spec`, and against cases. Raises BadInput."""
    argument = {
        "sources": [source.argument for source in sources],
        "spec": spec.model_dump_json(),
        "cases": [case.model_dump(mode="json", include={"case_id", "suite", "messages", "vars"}) for case in cases],
    }
    made = confined_answer(compare, argument, _named(sources), _limits(sources))
    return Against(made["broken"], made["leaking"], tuple(made["shown"]))


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
        items: Iterator[Any] = take(source)
        for kind, *values in items:
            if kind == "stopped":
                raise BadInput(f"{name}: {values[0]}")
            if kind == "row":
                _, prompt, completion, attributes = values
                yield TrainingRow(f"{name}:{attributes['number']}", "imported", prompt, completion, attributes)
            elif kind == "problem":
                yield f"{name}, record {values[0]}: {values[1]}"


def count(argument: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
    """What there is."""
    read = list(_rows(argument))
    rows = [row for row in read if isinstance(row, TrainingRow)]
    problems = [row for row in read if isinstance(row, str)]
    repeats = repeats_in(rows)
    different = [row for row in rows if row.row_id not in repeats.same]
    plain = [row for row in different if len(row.prompt) == len(row.completion) == 1 and "tools" not in row.attributes]
    answers = [str(turn.get("content") or "") for row in rows for turn in row.completion]
    yield {
        "rows": len(rows),
        "unusable": len(problems),
        "problem": problems[0] if problems else "",
        "same": len(repeats.same),
        "contradicted": list(repeats.contradicted),
        "askable": sum(row.attributes["number"] > SHOWN for row in plain),
        "longest_answer": max(map(len, answers), default=0),
        "examples": _examples([row for row in plain if row.row_id not in repeats.contradicted] or different),
    }


def _examples(rows: Sequence[TrainingRow]) -> list[dict[str, str]]:
    """A few rows that show the others: the first, then such that words that many answers have are each seen once."""
    pairs = [(str(row.prompt[-1].get("content") or ""), str(row.completion[0].get("content") or "")) for row in rows]
    pairs = [pair for pair in pairs if all(text.strip() and len(text) <= _EXAMPLE_CHARS for text in pair)]
    counts = Counter(word for _, answer in pairs for word in set(answer.split()))
    lacking = {word for word, holders in counts.items() if holders > 1}
    chosen, left = pairs[:SHOWN], pairs[SHOWN:]
    for _, answer in chosen:
        lacking -= set(answer.split())
    while left and lacking and len(chosen) < _EXAMPLES_MOST:
        best = max(left, key=lambda pair: len(lacking & set(pair[1].split())))
        if not lacking & set(best[1].split()):
            break
        left.remove(best)
        chosen.append(best)
        lacking -= set(best[1].split())
    return [{"prompt": prompt, "answer": answer} for prompt, answer in chosen]


def compare(argument: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    """What rows break and repeat."""
    spec = Spec.model_validate_json(argument["spec"])
    checks = BehaviourChecks(spec, [])
    rows = [row for row in _rows(argument["sources"]) if isinstance(row, TrainingRow)]
    cases = [Case.model_validate(case) for case in argument["cases"]]
    gate = LeakGate(cases if len(cases) * len(rows) <= _MOST_COMPARISONS else [], spec.slot, 85.0)
    broken: Counter[str] = Counter()
    examples = {normal(example.prompt, digits_count=True): example.prompt for example in spec.examples}
    leaking, shown = 0, set[str]()
    for row in rows:
        message = str(row.prompt[-1].get("content") or "")
        shown |= {examples[said]} if (said := normal(message, digits_count=True)) in examples else set()
        broken.update(rule.says for rule in checks.broken_guesses(str(row.completion[-1].get("content") or "")))
        leaking += gate.check(row.row_id, row_texts(row, message)) is not None
    yield {"broken": dict(broken), "leaking": leaking, "shown": sorted(shown)}
