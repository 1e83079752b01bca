"""A person's rows before a plan is made of them: all are read, and what is wrong with them is asked or said at once.

A data set of the hub is read only after its download was agreed to: of it nothing is known here.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_object
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.description import EXAMPLES_MIN, distinct, slug
from tunesmith.tools.data.held_out import BLIND_LEAST, blind_count
from tunesmith.tools.data.spec import Spec, as_document, tokens_for
from tunesmith.tools.imports.import_rows import files_of, is_on_hub, look_at, questions, refusals, too_many_unusable
from tunesmith.tools.imports.survey import ROWS_LEAST, Against, RowsSource, Survey, against, survey
from tunesmith.tools.pipeline.behaviour_plan import OwnRows
from tunesmith.tools.pipeline.workspace import Ask
from tunesmith.tools.suites.case import Case

_MANY_ROWS = 5_000
_LONG_READ_BYTES = 5_000_000
"""From there on it is said beforehand that reading, or what follows, takes its time."""
_UNREAD_ROWS = 1_000
"""As many a data set of the hub is taken for until it is read: the plan shows a price, and says that it is a guess."""

_LABEL = "label"
# As `verify.topic` has it: code draws nothing of it, rows only differ in it.
_TOPIC = {"name": "topic", "kind": "text", "means": "what the message is about", "shown": False, "words_max": 6}

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
    """Rows as they were read."""

    wanted: Wanted
    imports: tuple[Mapping[str, object], ...]
    """Fields of an import step for each source."""
    sources: tuple[RowsSource, ...]
    """Those of this machine."""
    survey: Survey | None
    """None where some of them could not be read yet."""
    contradictory: Literal["refuse", "drop", "keep"] = "refuse"
    notes: tuple[str, ...] = ()
    """What the person should know of them, a sentence each."""

    @property
    def usable(self) -> int:
        """Rows that say something of their own and are not left out."""
        if self.survey is None:
            return _UNREAD_ROWS
        return self.survey.different - (len(self.survey.contradicted) if self.contradictory != "keep" else 0)


@dataclass(frozen=True, slots=True)
class Settled:
    """Rows and the behaviour that they teach, ready for a plan."""

    own: OwnRows
    spec: Spec
    trained_examples: tuple[str, ...]
    """Messages of the spec's examples that are trained on."""
    notes: tuple[str, ...]


def bring(wanted: Wanted, ask: Ask, say: Callable[[str], None] = lambda text: None) -> Brought:
    """Read the rows; where that takes a while it is said. Raises BadInput for what no training comes of."""
    sources, imports, beyond = [], [], []
    for name in wanted.names:
        mapping = dict(wanted.mapping)
        if not is_on_hub(name):
            mapping = _mapping(name, wanted, ask)
            taken = look_at(files_of(name), mapping, wanted.limit).inspection.taken
            beyond += [f"{name}: {taken}"] if taken else []
            sources.append(RowsSource(files_of(name).files, mapping, wanted.limit, name))
        fields = {"source": name, "limit": wanted.limit, "max_unusable_share": wanted.max_unusable_share}
        imports.append({**fields, "mapping": mapping})
    if wanted.mapping and not any(step["mapping"] for step in imports):
        look_at(files_of(wanted.names[0]), wanted.mapping, wanted.limit)  # which says that it is followed nowhere
    if (size := sum(file.stat().st_size for source in sources for file in source.files)) > _LONG_READ_BYTES:
        say(f"reading {wanted.title}, {size / 1e6:,.0f} MB")
    if len(sources) < len(imports):
        return Brought(wanted, tuple(imports), tuple(sources), None, wanted.contradictory or "drop")
    read = survey(sources)
    _check(read, wanted)
    what = _contradictions(read)
    contradictory = wanted.contradictory or (_asked_about(what, ask) if what else "")
    then = {"": "you will be asked about them, or take --contradictory drop or keep", "drop": "they are left out"}
    beyond += [
        f"{name}: it holds more than {wanted.limit:,} records; those behind them are left out (--limit)"
        for name in read.more
    ]
    notes = (*_notes(read), *beyond, *([f"{what}; {then[contradictory]}"] if what and contradictory in then else []))
    brought = Brought(wanted, tuple(imports), tuple(sources), read, contradictory or "refuse", notes)
    if brought.usable < ROWS_LEAST:
        raise BadInput(f"{wanted.title}: {brought.usable} rows are left without those that contradict others; {_MORE}")
    return brought


def spec_of_rows(brought: Brought, name: str) -> Spec:
    """The behaviour as rows alone show it, named after their file. Raises BadInput."""
    title = brought.wanted.title
    row_options = " ".join(f"--rows {shlex.quote(row)}" for row in brought.wanted.names)
    described = f"describe it in a file with {EXAMPLES_MIN} examples: teach FILE {row_options}"
    if brought.survey is None:
        raise BadInput(f"nobody has read the rows of {title} yet, so that nothing shows the behaviour; {described}")
    candidates = distinct(brought.survey.examples)
    if len(candidates) < EXAMPLES_MIN:
        raise BadInput(
            f"{title}: {len(candidates)} rows show the behaviour: such a row is short, its user and assistant take "
            f"turns, and its answer calls one tool at most; {described}"
        )
    # each row keeps its own; the behaviour is under none of them
    if len({example.system for example in candidates}) > 1:
        candidates = tuple(example.model_copy(update={"system": ""}) for example in candidates)
    examples = [example.model_dump(mode="json") for example in candidates]
    document: dict[str, object] = {"name": slug(name), "examples": examples}
    if labels := brought.survey.labels:
        choice = {"name": _LABEL, "values": {label: {} for label in labels}}
        document |= {"attributes": [choice, _TOPIC], "answer": {"form": "text", "template": f"{{{_LABEL}}}"}}
    try:
        return spec_of(document, name)
    except BadInput:  # one form does not hold them all, such as calls beside words: rows may have any
        return spec_of({"name": slug(name), "examples": examples, "attributes": [_TOPIC]}, name)


def settle(brought: Brought, spec: Spec, cases: Sequence[Case], *, formed: bool = False) -> Settled:
    """The spec without what the rows refute, with room for their answers, and how many rows become blind cases.

    Where the person's file says of which form answers are (`formed`), that stays whatever the rows say. Raises BadInput
    for more blind cases than leave something to train on.
    """
    if brought.survey is None:
        blind = BLIND_LEAST if brought.wanted.blind is None else brought.wanted.blind
        return Settled(_own(brought, brought.usable, blind), spec, (), brought.notes)
    keep = brought.contradictory == "keep"
    conflicts, rows = against(brought.sources, spec, cases, contradicted=keep), brought.survey.rows
    notes = []
    if conflicts.unformed and not formed:
        notes.append(f"no form, as {conflicts.unformed} of {rows} answers do not have it: {form_of(spec)}")
        spec = _free(spec)
        conflicts = against(brought.sources, spec, cases, contradicted=keep)
    notes += [f"no rule, as {n} of {rows} rows do not keep it: {rule}" for rule, n in conflicts.broken.items()]
    notes += conflicts.left_out
    if (usable := brought.usable - conflicts.lost) < ROWS_LEAST:
        raise BadInput(f"{brought.wanted.title}: {'; '.join([f'{usable} rows are left to train on', *notes])}; {_MORE}")
    if conflicts.leaking:
        notes.append(f"{conflicts.leaking} of {rows} rows repeat a test case: they test, and are not trained on")
    changes: dict[str, object] = {"rules": tuple(rule for rule in spec.rules if rule.says not in conflicts.broken)}
    if (tokens := tokens_for(brought.survey.longest_answer)) > spec.max_tokens:
        changes["answer_tokens"] = tokens
    blind, why = _blind(brought, conflicts, usable)
    notes = [*brought.notes, *notes, *why]
    return Settled(_own(brought, usable, blind), spec.model_copy(update=changes), conflicts.repeated, tuple(notes))


def _free(spec: Spec) -> Spec:
    """The behaviour with answers of any form."""
    concluded = ("answer", "criteria", "rules")
    document = {name: value for name, value in as_document(spec).items() if name not in concluded}
    stated = [rule.model_dump() for rule in spec.rules if not rule.guessed]
    loosened = spec_of({**document, "attributes": [_TOPIC], **({"rules": stated} if stated else {})}, spec.name)
    return loosened.model_copy(update={"blind": spec.blind})


def _own(brought: Brought, usable: int, blind: int) -> OwnRows:
    return OwnRows(brought.imports, usable, blind, brought.contradictory)


_MORE = (
    f"bring {ROWS_LEAST} or more that differ, or describe the behaviour in a file with {EXAMPLES_MIN} examples, and "
    "rows are written for it (teach FILE)"
)


def _mapping(name: str, wanted: Wanted, ask: Ask) -> dict[str, str]:
    """How the columns of a source are read, agreed on with the person where they do not say it themselves."""
    mapping = dict(wanted.mapping)
    try:
        look = look_at(files_of(name), mapping, wanted.limit)
    except BadInput:
        if len(wanted.names) == 1 or not mapping:
            raise
        mapping, look = {}, look_at(files_of(name), {}, wanted.limit)  # it is for another one of them
    for question in questions(look.inspection):
        if ask(question):
            return {name: str(role) for name, role in as_object(question.yes["mapping"]).items()}
    if refused := refusals(look.inspection, wanted.max_unusable_share):
        raise BadInput(f"{name}: {'; '.join(refused)}")
    return mapping


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


def _blind(brought: Brought, conflicts: Against, usable: int) -> tuple[int, list[str]]:
    """How many of the rows that are left become blind cases, and what is to be said of that."""
    blind = blind_count(usable) if brought.wanted.blind is None else brought.wanted.blind
    if usable - blind < EXAMPLES_MIN:
        raise BadInput(
            f"--blind {blind} leaves {usable - blind} of {usable} rows to train on; take half of them at most"
        )
    notes = []
    if conflicts.askable < blind:
        notes.append(
            f"only {conflicts.askable} of {usable} rows can become blind cases: in the form of the examples, with one "
            "answer, and shown to nobody"
        )
        blind = conflicts.askable
    if blind < BLIND_LEAST:
        more = f" (--blind {BLIND_LEAST})" if conflicts.askable >= BLIND_LEAST else ""
        more = f" ({2 * BLIND_LEAST} rows give {BLIND_LEAST})" if usable < 2 * BLIND_LEAST else more
        notes.append(
            f"{blind} blind cases decide nothing: a verdict takes {BLIND_LEAST}{more}, or your ratings of answers "
            "(`tunesmith rate`)"
        )
    return blind, notes


def _notes(read: Survey) -> list[str]:
    notes = []
    if read.unusable:
        notes.append(f"{read.unusable} records are no rows and are left out ({read.problem})")
    if read.same:
        notes.append(f"{read.same} rows say what another one says, and count once")
    if read.rows >= _MANY_ROWS:
        notes.append(
            # a fifth shows soon whether they teach anything
            f"{read.rows:,} rows take as long as the price says; --limit {_MANY_ROWS // 5} takes the first ones"
        )
    return notes
