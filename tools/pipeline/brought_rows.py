"""A person's rows before a plan is made of them: all are read, and what is wrong with them is asked or said at once.

A data set of the hub is read only after its download was agreed to: of it nothing is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.description import EXAMPLES_MIN, distinct, slug
from tunesmith.tools.data.import_rows import files_of, is_on_hub, look_at, questions, refusals, too_many_unusable
from tunesmith.tools.data.own_rows import BLIND_LEAST, ROWS_LEAST, blind_count
from tunesmith.tools.data.own_survey import Against, RowsSource, Survey, against, survey
from tunesmith.tools.data.spec import Spec, tokens_for
from tunesmith.tools.pipeline.behaviour_plan import OwnRows
from tunesmith.tools.pipeline.workspace import Ask
from tunesmith.tools.suites.case import Case

_MANY_ROWS = 5_000
_LONG_READ_BYTES = 5_000_000
_UNREAD_ROWS = 1_000
"""As many a data set of the hub is taken for until it is read."""

Contradictory = Literal["", "drop", "keep"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person brings, and how it is to be taken."""

    names: tuple[str, ...]
    mapping: Mapping[str, str]
    limit: int
    max_unusable_share: float
    blind: int | None = None
    """None: as many as are usual of so many rows."""
    contradictory: Contradictory = ""
    """Empty: it is asked."""

    @property
    def title(self) -> str:
        """The names, for a sentence."""
        return ", ".join(self.names)


@dataclass(frozen=True, slots=True)
class Brought:
    """Rows as they can be planned with."""

    own: OwnRows
    sources: tuple[RowsSource, ...]
    """Those of this machine."""
    survey: Survey | None
    """None where no row could be read yet."""
    notes: tuple[str, ...] = ()
    """What the person should know of them, a sentence each."""


def bring(wanted: Wanted, ask: Ask, say: Callable[[str], None] = lambda text: None) -> Brought:
    """Read the rows; where that takes a while it is said. Raises BadInput for what no training comes of."""
    sources, imports = [], []
    for name in wanted.names:
        mapping = dict(wanted.mapping)
        if not is_on_hub(name):
            mapping = _mapping(name, wanted, ask)
            sources.append(RowsSource(files_of(name).files, mapping, wanted.limit))
        fields = {"source": name, "limit": wanted.limit, "max_unusable_share": wanted.max_unusable_share}
        imports.append({**fields, "mapping": mapping})
    if (size := sum(file.stat().st_size for source in sources for file in source.files)) > _LONG_READ_BYTES:
        say(f"reading {wanted.title}, {size / 1e6:,.0f} MB")
    read = survey(sources) if sources else None
    if read is None or len(sources) < len(imports):
        own = OwnRows(tuple(imports), _UNREAD_ROWS, BLIND_LEAST if wanted.blind is None else wanted.blind)
        return Brought(replace(own, contradictory=wanted.contradictory or "drop"), tuple(sources), read)
    _check(read, wanted)
    what = _contradictions(read)
    contradictory = wanted.contradictory or (_asked_about(what, ask) if what else "")
    usable = read.different - (len(read.contradicted) if contradictory != "keep" else 0)
    if usable < ROWS_LEAST:
        raise BadInput(f"{wanted.title}: {usable} rows are left without those that contradict each other; {_MORE}")
    blind, why = _blind(usable, read, wanted)
    later = f"{what}; you will be asked about them, or take --contradictory drop or keep"
    notes = (*_notes(read, wanted), *why, *([later] if what and not contradictory else []))
    return Brought(OwnRows(tuple(imports), usable, blind, contradictory or "refuse"), tuple(sources), read, notes)


def spec_of_rows(brought: Brought, name: str) -> Spec:
    """The behaviour as rows alone show it, named after their file. Raises BadInput."""
    if brought.survey is None:
        raise BadInput(
            f"nobody has read the rows of {name} yet, so that nothing shows the behaviour; describe it in a file with "
            f"{EXAMPLES_MIN} examples: teach FILE --rows {name}"
        )
    examples = [example.model_dump(include={"prompt", "answer"}) for example in distinct(brought.survey.examples)]
    return spec_of({"name": slug(name), "examples": examples}, name)


def borne_out(brought: Brought, spec: Spec, cases: Sequence[Case]) -> tuple[Spec, Against, tuple[str, ...]]:
    """The spec without what the rows refute, with room for their answers; what was found; and what to say of it."""
    found = against(brought.sources, spec, cases) if brought.sources else Against({}, 0, ())
    rows = brought.survey.rows if brought.survey else 0
    notes = [
        f"{count} of {rows} rows do not keep this, so that it is no rule: {r}" for r, count in found.broken.items()
    ]
    if found.leaking:
        notes.append(f"{found.leaking} of {rows} rows repeat a test case: they test, and are not trained on")
    changes: dict[str, object] = {"rules": tuple(rule for rule in spec.rules if rule.says not in found.broken)}
    if (tokens := tokens_for(brought.survey.longest_answer if brought.survey else 0)) > spec.max_tokens:
        changes["answer_tokens"] = tokens
    return spec.model_copy(update=changes), found, tuple(notes)


_MORE = (
    f"bring {ROWS_LEAST} or more that differ, or describe the behaviour in a file with {EXAMPLES_MIN} examples, and "
    "rows are written for it (teach FILE)"
)


def _mapping(name: str, wanted: Wanted, ask: Ask) -> dict[str, str]:
    """How the columns of a source are read, agreed on with the person where they do not say it themselves."""
    look = look_at(files_of(name), wanted.mapping, wanted.limit)
    for question in questions(look.inspection):
        if ask(question):
            return dict(question.yes["mapping"])
    if refused := refusals(look.inspection, wanted.max_unusable_share):
        raise BadInput(f"{name}: {'; '.join(refused)}")
    return dict(wanted.mapping)


def _check(read: Survey, wanted: Wanted) -> None:
    """Refuse what no training comes of. Raises BadInput."""
    lines = read.rows + read.unusable
    if refused := too_many_unusable(read.unusable, lines, wanted.max_unusable_share, read.problem):
        raise BadInput(f"{wanted.title}: {refused}")
    if read.different == 1 < read.rows:
        raise BadInput(f"{wanted.title}: all {read.rows} rows say the same, one message with one answer; {_MORE}")
    if read.different < ROWS_LEAST:
        same = f" ({read.same} more say what another one says)" if read.same else ""
        raise BadInput(f"{wanted.title}: {read.different} rows{same} are too few to train on; {_MORE}")


def _contradictions(read: Survey) -> str:
    """What contradicts itself, in words; empty where nothing does."""
    if not read.contradicted:
        return ""
    count, (one, other) = len(read.contradicted), read.contradicted[:2]
    return f"{count} of {read.rows} rows answer a message that another row answers otherwise, such as {one} and {other}"


def _asked_about(what: str, ask: Ask) -> Literal["", "drop"]:
    """What becomes of rows that contradict each other; empty where nobody is there to say it."""
    answer = ask(PlanQuestion(text=f"{what}: leave them out?", yes={"contradictory": "drop"}, cautious=True))
    if answer is False:
        raise BadInput(f"{what}; correct them, or train on all of them with --contradictory keep")
    return "drop" if answer else ""


def _blind(usable: int, read: Survey, wanted: Wanted) -> tuple[int, list[str]]:
    """How many rows become blind cases, and what is to be said of that."""
    blind = blind_count(usable) if wanted.blind is None else wanted.blind
    if usable - blind < EXAMPLES_MIN:
        raise BadInput(
            f"--blind {blind} leaves {usable - blind} of {usable} rows to train on; at most half is sensible"
        )
    notes = []
    if read.askable < blind:
        notes.append(
            f"{read.askable} of {usable} rows are one message and one answer that nobody was shown; only such rows "
            "become blind cases"
        )
        blind = read.askable
    if blind < BLIND_LEAST:
        more = f"{2 * BLIND_LEAST} rows give {BLIND_LEAST}" if usable < 2 * BLIND_LEAST else f"--blind {BLIND_LEAST}"
        notes.append(
            f"{blind} blind cases decide nothing: a verdict takes {BLIND_LEAST} ({more}), or your ratings of answers "
            "(`tunesmith rate`)"
        )
    return blind, notes


def _notes(read: Survey, wanted: Wanted) -> list[str]:
    notes = []
    if read.unusable:
        notes.append(f"{read.unusable} records are no rows and are left out ({read.problem})")
    if read.same:
        notes.append(f"{read.same} rows say what another one says, and count once")
    if read.rows >= _MANY_ROWS:
        notes.append(
            f"{read.rows:,} rows take as long as the price says; --limit {_MANY_ROWS // 5} takes the first ones"
        )
    return notes
