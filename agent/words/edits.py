"""What a sentence changes of the proposed plan: values, steps to leave out, where it ends, and what nothing took."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.agent.words import acts
from tunesmith.agent.words.acts import Assigned, assigned, info_of, settled
from tunesmith.agent.words.held import end_of_part, held_back, taken_back
from tunesmith.agent.words.lexicon import everyday, lexicon, words_of
from tunesmith.agent.words.slots import FILES, Slot, Slots, empty_words, slots_of
from tunesmith.agent.words.unmeant import denial_before, denied, denied_values, factors, not_enough
from tunesmith.agent.words.unread import MARKS, NEAR, Place, loose_clauses, own_nouns, unread_of
from tunesmith.agent.words.values import numbers_alone, numbers_in
from tunesmith.tools.pipeline import catalog


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes of a plan: values by field, the stages that were named with them, and stages to leave out."""

    values: tuple[Assigned, ...] = ()
    stages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    last: str = ""
    """The stage after which the plan is to end; empty: not said."""
    model: str = ""
    pace: str = ""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Field → what its value in the plan is multiplied by: `half the epochs`."""
    unread: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    """Whole parts of the sentence that name nothing of a plan: a remark, or what a plan cannot hold."""
    denied: bool = False
    """Whether something takes a value back, judges it or limits it, or may be an argument: `for my uncle`."""

    @property
    def changes(self) -> bool:
        """Whether anything is given another value, or left out."""
        return bool(self.values or self.without or self.model or self.last or self.factors)


def edits_of(slots: Slots, planned: Sequence[str], known: Callable[[str], bool], *, leaves_out: bool) -> Edits:
    """What a sentence changes of a plan of these stages; `leaves_out`: it is about steps to leave out."""
    stages = [slot for slot in slots.all("stage") if slot.value in planned]
    assignments, words = assigned(slots, tuple(planned)), slots.words
    if leaves_out and not (stages or assignments or [n for n in slots.numbers if not n.weak]):  # `skip the last step`
        lasts = [match for match in lexicon()["ordinals"].find(words) if match.name == "-1"]
        stages = [Slot("stage", planned[-1], words[one.first].start, words[one.after - 1].end) for one in lasts]
    until = [slot for slot in stages if any(u.end <= slot.start and len(slots.between(u.end, slot.start)) <= 2
                                            for u in (*slots.all("until"), *slots.all("only")))]  # fmt: skip
    negated = _left_out(slots, stages, until)
    last = str(until[0].value) if until and (leaves_out or (negated and not assignments)) else ""
    without = [str(slot.value) for slot in negated or (stages if leaves_out and not last else [])]
    model = model_in(slots)
    pace = next(iter(slots.all("pace")), None)
    multiples = {name: one for name, one in factors(slots).items() if info_of(name, tuple(planned))}
    if not multiples and len(assignments) == 1 and len(times := slots.all("factor")) == 1:  # `4 epochs? cut it in half`
        multiples = {assignments[0].field: (float(str(times[0].value)), (times[0].start, times[0].end))}
    places = [*(place for one in assignments for place in one.places), *(place for _, place in multiples.values())]
    by_place = "figure" if stages and not slots.all("stage") else ""  # `the last step`
    places += acts.places_of(slots, (*acts.OWN_SLOTS, "stage", "commit", "unspoken", by_place))
    places += [(slot.start, slot.end) for slot in (model, pace) if slot is not None]
    places += _unwanted(slots, places) if assignments else []
    places += own_nouns(slots, [str(slot.value) for slot in stages])
    others = [slot for slot in slots.all("stage") if slot.value in catalog.BY_NAME and not slots.negated(slot)]
    names = list(dict.fromkeys(str(slot.value) for slot in (*stages, *others) if slot not in negated))
    denied = [*denied_values(slots), *not_enough(slots), *taken_back(slots)]
    unread = unread_of(slots, places, known, denied, by_part=True)
    # what is said of steps that are left out is no argument: `no deploy, nothing on any port`
    moot = [one for one in slots.all("field") if {*acts.known_fields().get(str(one.value), ("",))} <= {*without}]
    edits = Edits(
        tuple(assignments), tuple(names), tuple(dict.fromkeys(without)), last,
        str(model.value) if model else "", str(pace.value) if pace else "",
        {name: one[0] for name, one in multiples.items()}, unread,
        _not_done(slots, {*multiples, *(one.field for one in assignments)}, without),
        bool(denied or held_back(slots, places) or _governs(slots, unread, places)),
    )  # fmt: skip
    own = (*edits.without, *edits.stages, *(one.field for one in assignments))
    spoken = [one for one in slots.named if one not in moot and not (one.kind == "work" and edits.without)]
    clauses = [] if denied else loose_clauses(replace(slots, named=(*spoken, *stages)), places, known, own)
    if (edits.changes or slots.numbers) and clauses:  # of two numbers the plan tells which is the new one
        beside = (*edits.beside, *(slots.sentence[start:end].strip() for start, end in clauses))
        return replace(edits, unread=unread_of(slots, [*places, *clauses], known, by_part=True), beside=beside)
    return edits


def _not_done(slots: Slots, given: set[str], without: Sequence[str]) -> tuple[str, ...]:
    """The settings that are denied and given no value, as that was typed: `no new rows, 4 epochs`; none of a step that
    is left out."""
    of_those = {name for name, stages in acts.known_fields().items() if {*stages} & {*without}}
    fields = (one for one in slots.all("field") if one.value not in given | of_those)
    said = (slots.sentence[at : one.end] for one in fields if (at := denial_before(slots, one.start)) is not None)
    return tuple(one for one in said if not everyday("stays", words_of(one)))


def _governs(slots: Slots, unread: Sequence[str], places: Sequence[Place]) -> bool:
    """Whether what nothing took stands before what was read and no mark parts them, `avoid rank 16`, or behind a word
    such as `with`."""
    for at, text in ((slots.sentence.find(text), text) for text in unread):
        behind = min((start for start, _ in places if start >= at), default=0)
        last = [word for word in slots.words if word.end <= at][-1:]
        if lexicon()["attaches"].find(last) or (
            behind and not set(MARKS) & set(slots.sentence[at + len(text) : behind])
        ):
            return True
    return False


def with_harmless_told(edits: Edits) -> Edits:
    """The edits, each word that nobody knows told beside them: none that is a number or names a thing of the trade."""
    known = [one for one in edits.unread if numbers_in(one) or slots_of(one).named]
    harmless = [] if edits.denied or known or not edits.changes else [*edits.unread]
    return replace(edits, unread=(), beside=(*edits.beside, *harmless)) if harmless else edits


def settled_in(now: Mapping[str, object], edits: Edits) -> Edits:
    """The edits, a number that only names what the plan has `now` already taken as that."""
    multiplied = [(name, round(value * by) if isinstance(value, int) else value * by)
                  for name, by in edits.factors.items() if isinstance(value := now.get(name), int | float)]  # fmt: skip
    named = {one.field: one.value for one in edits.values}
    multiplied = [(name, value) for name, value in multiplied if named.get(name, value) in (value, now[name])]
    own = [one for one in edits.values if one.field not in dict(multiplied)]
    at_odds = [f"{by:g} times" for name, by in edits.factors.items() if name in named and name not in dict(multiplied)]
    values, unread = settled([*own, *(Assigned(name, value, ()) for name, value in multiplied)], edits.unread, now)
    found = replace(edits, values=values, unread=(*unread, *at_odds), factors={})
    said = {one.field: one.value for one in edits.values}
    swapped = any(said.get(one.field, one.value) != one.value for one in values)
    # what is said of an old value orders nothing
    return with_harmless_told(replace(found, denied=False)) if swapped else found


def as_it_was(edits: Edits, now: Mapping[str, object], before: Mapping[str, object]) -> Edits:
    """The edits, a number alone being what one setting of the plan had before its last change: `no, back to 16`."""
    old = [name for name, value in before.items() if value != now.get(name) and [value] == numbers_alone(edits.unread)]
    if edits.changes or len(old) != 1:
        return edits
    return replace(edits, values=(Assigned(old[0], before[old[0]], ()),), unread=())


def without_rows(edits: Edits) -> Edits:
    """The values that are set beside rows that are taken from elsewhere, and nothing else."""
    beside = tuple(one for one in edits.beside if "rows" not in slots_of(one).values("field"))
    values = tuple(one for one in edits.values if one.field != "rows")
    return replace(edits, values=values, without=(), unread=(), beside=beside)


def beside_steps(edits: Edits, slots: Slots) -> Edits:
    """What is said beside steps that are to be added: values of other ones, and what nothing took."""
    added = [one for one in slots.all("stage") if not slots.negated(one)]
    own = {one.field for stage in added for one in assigned(slots, (str(stage.value),))
           if _is_set(slots, stage) or len(acts.known_fields()[one.field]) == 1}  # fmt: skip
    values = tuple(one for one in edits.values if one.field not in own)
    unread = [one for one in edits.unread if one.split()[-1].lower() not in slots.values("arm")]
    return Edits(values, unread=(*unread, *edits.beside))


def model_in(slots: Slots) -> Slot | None:
    """The model that a sentence names; a file of rows is none."""
    named = (slot for slot in slots.named if slot.kind in ("model", "path"))
    return next((slot for slot in named if not re.search(f"{FILES}$", str(slot.value))), None)


def _unwanted(slots: Slots, taken_places: Sequence[Place]) -> list[Place]:
    """Numbers that no field took and that something is not to be: `8 bits, not 4`; and what says in words alone what it
    is instead of: `2 epochs instead of what it says`."""
    told = [(one.start, end_of_part(slots, one.end)) for one in slots.all("instead")]
    names = [one.start for one in slots.numbers]
    names += [one.start for one in slots.named if one.kind in ("field", "stage")]
    in_words = [(start, end) for start, end in told if not any(start < at < end for at in names)]
    free = [n for n in slots.numbers if not any(start <= n.start < end for start, end in taken_places)]
    marks = (*slots.all("not"), *slots.all("instead"))
    denied = [(mark.start, n.end) for mark in marks for n in free
              if mark.end <= n.start and not slots.between(mark.end, n.start)]  # fmt: skip
    return [*in_words, *denied]


def _left_out(slots: Slots, stages: Sequence[Slot], until: Sequence[Slot]) -> list[Slot]:
    """The stages that a negation stands before, and those that only words without a content join to one: `without the
    merge, the quantization or deploy`, but `no deploy but a merge` and `no deploy and train with rank 8`."""
    negated: list[Slot] = []
    since, left_out = 0, False
    for slot in stages:
        between = slots.between(since, slot.start)
        empty = len(between) <= NEAR and all(word.text in empty_words() for word in between)
        parts = any(lexicon()[table].find(between) for table in ("contrast", "speakers"))
        joined = left_out and empty and not parts and not _is_set(slots, slot)
        since, left_out = slot.end, slot not in until and (joined or denied(slots, slot, since))
        negated += [slot] if left_out else []
    return negated


def _is_set(slots: Slots, stage: Slot) -> bool:
    """Whether a setting of a stage stands behind it, with no mark and no joint between: it is to be carried out."""
    begins = [start for one in assigned(slots, (str(stage.value),)) for start, _ in one.places if start >= stage.end]
    joined = (at for at in begins if not lexicon()["joints"].find(slots.between(stage.end, at)))
    return any(not set(MARKS) & set(slots.sentence[stage.end : at]) for at in joined)
