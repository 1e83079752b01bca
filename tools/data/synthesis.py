"""Rows from drawn attributes: a message is written for them, checked by code, read back by the model, and then kept.

Messages are written whole; `lists` puts them together from sentences. The answer is composed by code from what was
drawn, or from what the message says instead for sure; where nothing decides it a model writes it (`answers`). More are
written than are wanted: each has the margin of its reading, and critique keeps the surest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.arithmetic import number_of
from tunesmith.tools.core.similarity import Likeness
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.draw import Pools, draw, fill_pools, in_turn, style
from tunesmith.tools.data.reader import WHOLE, Reader, Reading, ToRead
from tunesmith.tools.data.reading import NOTHING, Disagreement
from tunesmith.tools.data.record_values import Values, excluded, with_computed
from tunesmith.tools.data.row_checks import (
    drawn_problem,
    in_message_order,
    names_label,
    note_problem,
    prompt_problem,
    stated_surfaces,
    verbatim,
)
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import conflict, holds, matches_in, value_of
from tunesmith.tools.data.writer_requests import (
    STYLE,
    Shot,
    example_shots,
    message_request,
    profile_of,
    written_message,
)
from tunesmith.tools.serving.client import ChatResponse
from tunesmith.tools.serving.requests import Asker

SURE = 3.0
"""Log-odds, in nats, from which the reader's word on another value counts: twenty to one."""
_SURELY_FOUND = ("digits", "email", "url")
"""Kinds that are said in no other way than code looks for."""


def as_stated(spec: Spec, drawn: Draw, message: str) -> Draw:
    """The draw with the typed values that the message says instead of the drawn ones, where it says one of a kind."""
    values, surfaces = dict(drawn.values), dict(drawn.surfaces[0])
    leaves = [(path, attribute) for path, attribute in spec.leaves(values) if attribute.typed]
    kinds = Counter(attribute.kind for _, attribute in leaves)
    for path, attribute in leaves:
        if kinds[attribute.kind] > 1 or not conflict(attribute, surfaces.get(path, ""), message):
            continue
        there = matches_in(attribute, message)
        if not there and _may_lack(attribute) and attribute.kind in _SURELY_FOUND:
            values[path] = None
            surfaces.pop(path, None)
        elif len(there) == 1 and (value := value_of(attribute, there[0])) is not None:
            values[path], surfaces[path] = value, there[0]
    return with_values(spec, drawn, values, surfaces)


def as_read(spec: Spec, drawn: Draw, message: str, reading: Reading) -> Draw | None:
    """The draw with what the reader read instead; None where that cannot be verified, or does not go together."""
    values, surfaces = dict(drawn.values), dict(drawn.surfaces[0])
    for one in reading.differing:
        attribute = _attribute(spec, one.attribute)
        sure = reading.margins.get(one.attribute, reading.margins.get(WHOLE, 0.0)) >= SURE
        if attribute is None or not sure or one.attribute in reading.untried:
            return None
        if one.read in attribute.values and attribute.kind == "label":
            values[one.attribute] = one.read
        elif holds(message, one.read) and (
            attribute.kind == "copied" or (attribute.kind == "text" and number_of(one.read) is not None)
        ):
            values[one.attribute] = surfaces[one.attribute] = one.read
        elif one.read == NOTHING and _may_lack(attribute):
            values[one.attribute] = None
            surfaces.pop(one.attribute, None)
        else:
            return None
    written = verbatim(spec, values, message)
    return with_values(spec, drawn, written, surfaces) if go_together(spec, written) else None


def _attribute(spec: Spec, path: str) -> Attribute | None:
    try:
        return spec.attribute(path)
    except KeyError:  # a name that no attribute has
        return None


def _may_lack(attribute: Attribute) -> bool:
    return attribute.absent_share > 0


def go_together(spec: Spec, values: Mapping[str, str | None]) -> bool:
    """Whether each attribute is absent where a label says so, and only there or where it may be."""
    for path, attribute in spec.leaves(values):
        lacking = path in values and values[path] is None
        if attribute.shown and lacking != excluded(attribute, values) and not (lacking and _may_lack(attribute)):
            return False
    return bool(form_of(spec).of_records) or any(value is not None for value in values.values())


def with_values(spec: Spec, drawn: Draw, values: Values, surfaces: dict[str, str]) -> Draw:
    """The draw with other values in its first record, and what is computed of them."""
    computed = with_computed(spec, values)
    return replace(drawn, records=(computed, *drawn.records[1:]), surfaces=(surfaces, *drawn.surfaces[1:]))


ALIKE = 90.0
"""Similarity, of 100, from which a message is written anew for being like another row's: critique would drop it as a
duplicate."""
_NAMING = 0.5
"""Of the rows of a label's value, the share that may say it by its own name: else the name is all that is learned of
it."""
_RARE, _ROUNDS_MORE, _AGAIN, _REDRAWS = 0.8, 3, 1.4, 20
"""A label's value is rare below this part of what is wanted of it; so many rounds follow the tries, of so many rows for
each that is lacking: some of these fail again."""


@dataclass(frozen=True, slots=True)
class Written:
    """A row as it came: what was drawn, its message, its answer, and what is wrong with it."""

    drawn: Draw
    message: str
    answer: str = ""
    problem: str = ""
    """Why it cannot be kept as it is; the first word is the kind. Empty: nothing that code or the reader can tell."""
    read: tuple[Disagreement, ...] = ()
    attempt: int = 1
    of_kind: float | None = None
    margin: float | None = None
    """Log-odds, in nats, by which the reader took it for what it is kept as."""
    was: Values = field(default_factory=dict)
    """The values that were drawn; the message may say others, and the row is kept under those."""
    finish_reason: str | None = None
    agreed: bool | None = None
    """Of a written answer, whether most of several independent ones come to the same value."""

    @property
    def doubted(self) -> bool:
        """Whether it lacks a drawn value, so that it says another one, or none: a reader may tell which."""
        return self.problem.startswith("value:")

    @property
    def relabelled(self) -> Values:
        """Attribute → the value that was drawn, where the message says another one."""
        final = self.drawn.values
        return {name: value for name, value in self.was.items() if final.get(name) != value}


@dataclass(slots=True)
class Synthesis:
    """The rows of one behaviour, written by one model."""

    spec: Spec
    asker: Asker
    rows: int
    seed: int
    temperature: float
    tries: int
    reader: Reader
    wanted: int = 0
    """Of the rows so many are to be good; 0: all."""
    keep: Callable[[Written], None] = lambda written: None
    """Gets each row as soon as it is done."""
    seen: Likeness = field(default_factory=Likeness)
    naming: Counter[str] = field(default_factory=Counter)
    """Value of a label → good rows that say it by its own name."""
    reads_values: bool = False
    """Whether the values beside the labels are read out of each message, and none is drawn."""

    def write(self) -> list[Written]:
        """Every row, in the order of their numbers.

        In rounds: the first writes all, the others what is lacking of some label's value, or of the whole.
        """
        pools = self._pools()
        shots = example_shots(self.spec)
        good: list[Written] = []
        failed: dict[int, Written] = {}
        pending = list(range(self.rows))
        for attempt in range(1, self.tries + _ROUNDS_MORE + 1):
            drawn = {n: self._drawn(self.spec, n, attempt, self.rows, pools) for n in pending}
            more = [Shot(one.message, one.drawn.values, one.drawn.surfaces[0]) for one in good]
            note = "writing messages" if attempt == 1 else f"attempt {attempt}"
            responses = self._written(drawn, shots, f"m{attempt}", "write-message", note, more)
            checked = {n: self._checked(one, responses.get(n), attempt) for n, one in drawn.items()}
            for n, one in self._read_back(checked).items():
                if (one := self._first_of_its_kind(one)).problem:
                    failed[n] = one
                    continue
                failed.pop(n, None)
                good.append(one)
                self.keep(one)
            if not (pending := self._lacking(good, failed)):
                break
        for one in failed.values():
            self.keep(one)
        return sorted([*good, *failed.values()], key=lambda one: one.drawn.row_id)

    def _pools(self) -> Pools:
        return fill_pools(self.spec, self.asker, self.rows, self.seed)

    def _style(self, number: int, attempt: int) -> str:
        """How a row is to be written; empty: in no way in particular."""
        return style(self.seed, number + (attempt - 1) * self.rows)

    def _lacking(self, good: Sequence[Written], failed: Mapping[int, Written]) -> list[int]:
        """Of the rows that failed those to be written again, so that there are enough of all and of each value."""
        wanted = self.wanted or self.rows
        missing = wanted - len(good)
        rare: Counter[tuple[str, str | None]] = Counter()
        for label in self.spec.labels:
            counts = Counter(one.drawn.values.get(label.name) for one in good)
            for name in label.values:
                share = self._share(label, name)
                rare[label.name, name] = round(share) - counts[name] if counts[name] < _RARE * share else 0
        chosen = [n for n, one in failed.items() if any(rare[item] > 0 for item in one.was.items())]
        chosen += [n for n in failed if n not in chosen] if missing > 0 else []
        return sorted(chosen[: math.ceil(_AGAIN * max(missing, sum(rare.values())))])

    def _written(
        self, drawn: Mapping[int, Draw], shots: Sequence[Shot], prefix: str, page: str, progress_note: str,
        more: Sequence[Shot] = (),
    ) -> dict[int, ChatResponse]:  # fmt: skip
        """What the writer made of each draw, by its number."""
        requests = {
            n: message_request(
                self.spec, one, shots, self.asker.model, self.temperature, f"{prefix}/{n}", page=page, more=more
            )
            for n, one in drawn.items()
        }
        answers = self.asker.ask(list(requests.values()), progress_note)
        return {n: answers[request.id] for n, request in requests.items() if request.id in answers}

    def _drawn(self, spec: Spec, number: int, attempt: int, count: int, pools: Pools) -> Draw:
        """The draw of a row; a later attempt has the same profile, and other open values, words and style."""
        chosen = first = draw(spec, self.seed, number, pools)
        for lap in range(_REDRAWS if attempt > 1 else 0):
            again = draw(spec, self.seed, number + (attempt - 1 + lap * _REDRAWS) * count, pools)
            if profile_of(spec, first.values) == profile_of(spec, again.values):
                chosen = replace(again, row_id=first.row_id)
                break
        return replace(chosen, told=chosen.told | {STYLE: self._style(number, attempt)})

    def _checked(self, drawn: Draw, response: ChatResponse | None, attempt: int) -> Written:
        """The message held to what code can tell: it is one, and it says what was drawn, or another thing for sure."""
        message = self._in_style(written_message(response.text), drawn) if response else ""
        stated = as_stated(self.spec, drawn, message)
        surfaces = stated_surfaces(self.spec, stated.values, stated.surfaces[0], message)
        exact = in_message_order(self.spec, replace(stated, surfaces=(surfaces,)), message)
        exact = replace(exact, records=(verbatim(self.spec, exact.values, message),))
        problem = prompt_problem(self.spec, message) or note_problem(self.spec, message)
        if response and response.finish_reason == "length":
            problem = "cut off: the message met the token limit"
        return self._composed(exact, message, problem or self._copy(message), attempt, drawn.values)

    def _composed(self, drawn: Draw, message: str, problem: str, attempt: int, was: Values) -> Written:
        """The row of a message, with its answer and what is wrong with it."""
        problem = problem or drawn_problem(self.spec, drawn.values, drawn.surfaces[0], message)
        answer = form_of(self.spec).compose(drawn.records)
        return Written(drawn, message, answer, problem, attempt=attempt, was=was)

    def _copy(self, message: str) -> str:
        like = self.seen.match(message, ALIKE, digits_count=True)
        return f"duplicate: {like.score:.0f} of 100 like row {like.name}" if like else ""

    def _first_of_its_kind(self, one: Written) -> Written:
        """The row, a copy where one like it was found good before; what was read as wrong stands in nobody's way."""
        problem = one.problem or self._copy(one.message)
        if not problem and (named := names_label(self.spec, one.drawn.values, one.message)):
            self.naming[named] += 1
            if self.naming[named] > self._naming_most(named):
                problem = f"leftover: the message names its label, {named!r}, as enough rows do"
        if not problem:
            self.seen.add(one.drawn.row_id, one.message)
        return replace(one, problem=problem)

    def _naming_most(self, named: str) -> int:
        """Rows of a label's value that may say it by its own name: else the name would be all that is learned of it."""
        label = next(label for label in self.spec.labels if named in label.values)
        return math.ceil(_NAMING * self._share(label, named))

    def _share(self, label: Attribute, value: str) -> float:
        """Rows that are wanted of a label's value."""
        return label.values[value].weight / sum(v.weight for v in label.values.values()) * (self.wanted or self.rows)

    def _in_style(self, message: str, drawn: Draw) -> str:
        """Typed as the user's examples are: as many in small letters, as many without a mark at the end."""
        prompts = [example.prompt for example in self.spec.examples]
        typing = prompts[in_turn(range(len(prompts)), f"{self.seed}/typing", drawn.order)]
        if typing == typing.lower() and any(c.isalpha() for c in typing):
            return message.lower()
        return message if typing[-1:] in ".!?" else message.rstrip(".")

    def _read_back(self, written: Mapping[int, Written]) -> dict[int, Written]:
        """The messages with what the reader told of them; one that it is sure says another thing is kept as that."""
        readable = {n: one for n, one in written.items() if not one.problem or one.doubted}
        names = {n: f"{one.attempt}/{one.drawn.row_id}" for n, one in readable.items()}
        to_read = [
            ToRead(names[n], one.message, one.drawn.values, whole=self.reads_values or one.doubted)
            for n, one in readable.items()
        ]
        readings = self.reader.read(to_read)
        rows = {**written, **{n: self._as_read(one, readings[names[n]]) for n, one in readable.items()}}
        kinds = self.reader.of_kind({names[n]: rows[n].message for n in readable if not rows[n].problem})
        for n in readable:
            if (kind := kinds.get(names[n])) is None:
                continue
            problem = f"kind: its reader does not take the message for one of the kind ({kind:.0%})"
            rows[n] = replace(rows[n], of_kind=kind, problem=problem if kind < self.reader.trust.kind_cut else "")
        return rows

    def _as_read(self, one: Written, reading: Reading) -> Written:
        """The row with its reading: kept as what it surely says, else wrong where it says another thing."""
        read = replace(one, read=reading.differing, margin=reading.margin)
        if not reading.differing:
            return read
        if (drawn := as_read(self.spec, one.drawn, one.message, reading)) is not None:
            again = self._composed(drawn, one.message, "", one.attempt, one.was)
            if not again.problem:
                return replace(again, read=reading.differing, margin=reading.margin)
        return replace(read, problem=one.problem or _reading_problem(reading.differing))


def _reading_problem(read: Sequence[Disagreement]) -> str:
    one = read[0]
    if one.read == one.drawn:
        return f"reading: {one.attribute} was drawn as {one.drawn!r}, and its reader is not sure of that"
    return f"reading: {one.attribute} was drawn as {one.drawn!r} and read as {one.read!r}"
