"""What a person looks at: kept rows by label against what was drawn, which to look at first, what of their own is odd.

Whoever brings rows says by them what is right: nothing that was concluded from examples keeps one out, it is noted.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import KEEP, TrainingRow, Verdict
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.record_values import excluded
from tunesmith.tools.data.rows import ORDINARY, RULE
from tunesmith.tools.data.spec import Attribute, Spec

SHOWN_FIRST = 20
"""Before the first training of a behaviour: one key each, minutes for a person."""
_ODDS_MOST = 1_000
"""Likelihoods of a model say nothing finer: from here on it is "over 1000 to 1"."""
_DOUBTED = ("reading", "kind", "value", "label", "judge")
"""Kinds of verdict that another eye may overrule; the others are facts."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row to look at, with why."""

    row: TrainingRow
    message: str
    answer: str
    score: float
    why: str


def suspects(spec: Spec | None, rows: Sequence[TrainingRow], *, by_chance: bool = False) -> list[Suspect]:
    """The rows that are no ordinary ones, those that would be trained on first, and of them the most suspicious.

    `by_chance` they come as their ids' hash has it, so that the first ones stand for all. Those that are blind cases,
    or give one away, are not looked at.
    """
    own = [row for row in rows if row.origin not in ORDINARY and not row.attributes.hidden]
    lengths = sorted(len(row.answer) for row in own)
    usual = lengths[len(lengths) // 2] if lengths else 0
    ranked = []
    for row in own:
        message = spec.text_of(row.prompt) if spec else str(row.prompt[-1].get("content") or "")
        score, why = _suspicion(spec, row, usual)
        ranked.append(Suspect(row, message, row.answer, score, why))

    def place(suspect: Suspect) -> tuple[bool, float, str]:
        identity = suspect.row.row_id
        if by_chance:
            return left_out(suspect.row), 0.0, hashlib.sha256(f"look/{identity}".encode()).hexdigest()
        return left_out(suspect.row), -suspect.score, identity

    return sorted(ranked, key=place)


def chosen(spec: Spec, rows: Sequence[TrainingRow], wanted: int) -> frozenset[str]:
    """The ids of the generated rows that critique would train on, were nothing else against any: the surest ones.

    More are written than are wanted, so what a person marks of the others says nothing of what is trained on. What was
    decided of a row does not count: one that a person dropped is still one of those that were looked at.
    """
    sound = [replace(row, verdict=Verdict(KEEP)) for row in rows if not row.attributes.problem]
    return frozenset(row.row_id for row in best(spec, sound, wanted) if row.origin == "generated" and row.usable)


def left_out(row: TrainingRow) -> bool:
    """Whether a row will not be trained on, as far as is known."""
    return row.dropped or (row.verdict is None and bool(row.attributes.problem))


def _suspicion(spec: Spec | None, row: TrainingRow, usual: int) -> tuple[float, str]:
    """How likely it is that a row is wrong, all doubts together as if they were independent, and these in words.

    The scores say which rows are looked at first: their order counts, and not what they are.
    """
    doubts: list[tuple[float, str]] = []
    answer = row.answer
    problem = str(row.verdict) if row.dropped else row.attributes.problem
    if problem:
        # what another eye may overrule goes first
        doubts.append((0.9 if problem.split(":")[0] in _DOUBTED else 0.4, f"dropped: {problem}"))
    attempt = row.attributes.attempt
    for share, label in ((row.attributes.of_kind, "of the kind"), (row.attributes.judged, "right")):
        if share is not None and share < 1:
            doubts.append((1 - share, f"{label} with {share:.0%}"))
    if (margin := row.attributes.margin) is not None:
        doubts.append((1 / (1 + math.exp(margin)), f"read {_odds(margin)} against the next value"))
    # These are set by hand: as said above, their order is what counts.
    for name, drawn in row.attributes.relabelled:
        doubts.append((0.3, f"kept as what it says: {name} was drawn as {drawn!r}"))
    if attempt > 1:
        doubts.append((0.15 * (attempt - 1), f"written at attempt {attempt}"))
    if usual and len(answer) > 2 * usual + 20:  # 20: of answers of a word, twice as much is nothing
        doubts.append((0.3, "its answer is long"))
    if spec and form_of(spec).parse(answer) == []:
        # may well be right, and is what a writer that gives up says, too
        doubts.append((0.25, "its answer says that there is nothing"))
    total = 1.0
    for score, _ in doubts:
        # Below 1, so that a sure doubt does not hide how many others there are.
        total *= 1 - min(score, 0.99)
    return 1 - total, "; ".join(text for _, text in sorted(doubts, reverse=True)) or "nothing in particular"


def _odds(margin: float) -> str:
    """Log-odds in nats, as people say them."""
    odds = math.exp(min(abs(margin), math.log(_ODDS_MOST)))
    odds_text = f"{'over ' if odds >= _ODDS_MOST else ''}{odds:.0f} to 1"
    return odds_text if margin >= 0 else f"1 to {odds_text.removesuffix(' to 1')}"


_REASONS_LISTED, _RULE_CHARACTERS = 3, 100
"""Reasons that an error names, and characters of a rule in it: it stays a sentence."""
_SHARE_OFF = 0.3
"""A label's share of the kept rows may be so far from what was drawn, in parts of it, for a rarer one is drawn by
chance too: of 100 rows a value of a third varies by a seventh, one of a tenth by a third."""
_CONSTANT_SHARE, _LEAST_ACCEPTED, _EPSILON = 0.8, 0.6, 1e-6
"""One answer in so large a share of the rows teaches no choice; so much of the rows is kept however unbalanced they
are; a difference of shares that is none."""
_GIVES_AWAY = 0.7
"""Of the rows of a label so many more, or fewer, lack a value than of the others: it gives the label away."""
_FEW_ROWS = 12
"""For each value: shares of fewer rows are chance."""


def balance_of(spec: Spec, accepted: Sequence[TrainingRow], reasons: str) -> dict[str, dict[str, int]]:
    """Kept rows by value of each label, and with or without every other attribute.

    Raises StepFailed where no row of the behaviour is left, or, of rows that were drawn, none of some value of a label.
    """
    rows = [row for row in accepted if row.origin not in ORDINARY]
    if not rows:
        raise StepFailed(
            f"no row of the behaviour is left: {reasons}; drop the rule that most answers break, or let a larger model "
            "write (writer=teacher)"
        )
    balance: dict[str, dict[str, int]] = {}
    for attribute in spec.attributes:
        if not attribute.shown:
            continue
        counts = counted(spec, attribute, rows)
        balance[attribute.name] = counts
        drawn = sum(row.attributes.draw is not None for row in rows)
        enough = attribute.kind == "label" and drawn >= _FEW_ROWS * len(attribute.values)
        if enough and (absent := [value for value in attribute.values if not counts.get(value)]):
            raise StepFailed(
                f"no kept row has {attribute.name}={absent[0]}: nothing would teach it; generate more rows"
            )
    return balance


def counted(spec: Spec, attribute: Attribute, rows: Sequence[TrainingRow]) -> dict[str, int]:
    """Rows by the attribute's value in their answers; of one that is no label, by whether it is given."""
    counts: Counter[str] = Counter(dict.fromkeys(attribute.values, 0) if attribute.kind == "label" else {})
    for row in rows:
        records = form_of(spec).parse(row.answer)
        for values in records if records else [{}]:
            given = _given(attribute, values)
            if attribute.kind == "label" or (attribute.kind == "weekday" and given):
                counts.update(given or ["nothing"])
            else:
                counts["given" if given else "nothing"] += 1
    return dict(counts)


def alarms(spec: Spec, judged: Sequence[TrainingRow], accepted: Sequence[TrainingRow]) -> tuple[str, ...]:
    """Where the kept rows are not what was drawn: one answer for nearly all, a label too rare, a part never missing."""
    lines = []
    candidates = [row for row in judged if row.origin not in ORDINARY]
    rows = [row for row in accepted if row.origin not in ORDINARY]
    if not rows:
        return ()
    commonest, count = Counter(row.answer for row in rows).most_common(1)[0]
    if len(rows) >= _FEW_ROWS and count >= _CONSTANT_SHARE * len(rows):
        lines.append(f"{count} of {len(rows)} kept rows have the same answer {commonest[:60]!r}")
    for label in spec.labels:
        if not label.shown:
            continue
        drawn, now = _drawn(label, candidates), counted(spec, label, rows)
        for value in label.values if drawn else ():
            wanted, share = drawn[value], now.get(value, 0) / len(rows)
            if abs(share - wanted) > _SHARE_OFF * wanted and abs(share - wanted) * len(rows) >= 2:
                lines.append(f"{label.name}={value} is {share:.0%} of the kept rows, {wanted:.0%} was drawn")
        top, most = max(now.items(), key=lambda pair: pair[1])
        if len(rows) >= _FEW_ROWS and most >= _CONSTANT_SHARE * len(rows):
            lines.append(f"{label.name} is {top!r} in {most} of {len(rows)} kept rows: one answer for nearly all")
    lines += _giveaways(spec, rows)
    drawn_rows = any(row.attributes.draw for row in rows)
    return (*lines, *(_never_missing(spec, rows) if drawn_rows else ()))


def _giveaways(spec: Spec, rows: Sequence[TrainingRow]) -> Iterator[str]:
    """Labels that a model could tell by whether another value is there: it may learn that, which people do not keep."""
    records = [one for row in rows for one in form_of(spec).parse(row.answer) or ()]
    optional = [a for a in spec.attributes if a.shown and a.absent_share and a.kind != "label"]
    labels = ((a, label, value) for a in optional for label in spec.labels if label.shown for value in label.values)
    for attribute, label, value in labels:
        of_it, others = list[bool](), list[bool]()
        for one in records:
            if not excluded(attribute, one):
                (of_it if value in _given(label, one) else others).append(not _given(attribute, one))
        if min(len(of_it), len(others)) < _FEW_ROWS:
            continue
        if abs(sum(of_it) / len(of_it) - sum(others) / len(others)) >= _GIVES_AWAY:
            yield (
                f"{attribute.name} is missing in {sum(of_it)} of {len(of_it)} kept rows of {label.name}={value} and in "
                f"{sum(others)} of {len(others)} others: a model may learn that in place of what {value} means; bring "
                "rows of your own that show both"
            )


def _never_missing(spec: Spec, rows: Sequence[TrainingRow]) -> list[str]:
    """Attributes that a message may leave out, and nearly no kept row does: nothing would teach what is shown then."""
    records = [one for row in rows for one in form_of(spec).parse(row.answer) or ()]
    lines = []
    for attribute in spec.attributes if len(records) >= _FEW_ROWS else ():
        missing = sum(not _given(attribute, one) for one in records) / len(records)
        if attribute.shown and missing < _SHARE_OFF * attribute.absent_share:
            lines.append(
                f"{attribute.name} is missing in {missing:.0%} of what the kept rows say, {attribute.absent_share:.0%} "
                "was drawn: sentences without it were not read back as such; bring rows of your own that lack it"
            )
    return lines


def _drawn(label: Attribute, rows: Sequence[TrainingRow]) -> dict[str, float]:
    """Share of each value as it was drawn; empty where no row was, so that no share was meant."""
    values = [
        dict(row.attributes.relabelled).get(label.name, drawn.values.get(label.name))
        for row in rows
        if (drawn := row.attributes.draw) and drawn.records
    ]
    counts = Counter(values)
    return {value: counts[value] / len(values) for value in label.values} if values else {}


def _given(attribute: Attribute, values: Mapping[str, str | None]) -> list[str]:
    """The values of an attribute in an answer, and of an object what it holds; none where it is absent."""
    name = attribute.name
    inner = [path for path in values if path == name or path.startswith((f"{name}.", f"{name}["))]
    return [value for path in inner if (value := values[path]) is not None]


def _value(label: Attribute, row: TrainingRow) -> str:
    """The value of a label that a row was made for; empty for a row that was not drawn here."""
    drawn = row.attributes.draw
    return str(drawn.values.get(label.name)) if drawn and drawn.records else ""


def best(spec: Spec, judged: Sequence[TrainingRow], wanted: int = 0) -> list[TrainingRow]:
    """The rows without those that are not wanted, as the reader is surer of the others; 0: no number is wanted.

    `wanted` of each label's values in their drawn shares as far as there are so many. Then the surplus of values that
    are easy to write goes, until every value is as near to its share as the rarest one allows: two of five at most.
    """
    rows = _surest(spec, judged, wanted) if wanted else list(judged)
    for label in _labels(spec):
        drawn_rows = [row for row in rows if row.origin not in ORDINARY and _value(label, row)]
        accepted = [row for row in drawn_rows if row.usable]
        if len(accepted) < _FEW_ROWS * len(label.values):
            continue
        wanted_shares, by_value = _drawn(label, drawn_rows), dict[str, list[TrainingRow]]()
        for row in sorted(accepted, key=_doubt):
            by_value.setdefault(_value(label, row), []).append(row)
        shares = {value: wanted_shares[value] for value in by_value if wanted_shares.get(value)}
        surplus: set[str] = set()
        while shares and len(accepted) - len(surplus) > _LEAST_ACCEPTED * len(accepted):
            total = len(accepted) - len(surplus)
            ratios = {value: len(by_value[value]) / total / share for value, share in shares.items()}
            if all(abs(ratio - 1) < _SHARE_OFF - _EPSILON for ratio in ratios.values()):
                break
            surplus.add(by_value[max(ratios, key=lambda value: ratios[value])].pop().row_id)
        why = Verdict("balance", f"{label.name} has rows enough of this value beside those of the rarest")
        rows = [replace(row, verdict=why) if row.row_id in surplus else row for row in rows]
    return rows


def _surest(spec: Spec, judged: Sequence[TrainingRow], wanted: int) -> list[TrainingRow]:
    """`wanted` of the kept rows that were drawn: first of each label's value its share, then the rest by margin."""
    drawn_rows = [row for row in judged if row.origin not in ORDINARY and row.attributes.draw]
    left = sorted((row for row in drawn_rows if row.usable), key=_doubt)
    most = {
        (label.name, value): math.ceil(share * wanted)
        for label in _labels(spec)
        for value, share in _drawn(label, drawn_rows).items()
    }
    counts: Counter[tuple[str, str]] = Counter()
    chosen: set[str] = set()
    for row in left:
        values = [(label.name, _value(label, row)) for label in _labels(spec)]
        if len(chosen) < wanted and all(counts[value] < most.get(value, 0) for value in values):
            chosen.add(row.row_id)
            counts.update(values)
    rest = [row.row_id for row in left if row.row_id not in chosen]
    surplus = set(rest[max(0, wanted - len(chosen)) :])
    why = Verdict("surplus", f"there are {wanted} rows that the reader is surer of")
    return [replace(row, verdict=why) if row.row_id in surplus else row for row in judged]


def _labels(spec: Spec) -> list[Attribute]:
    return [] if form_of(spec).of_records else [label for label in spec.labels if label.shown]


def _doubt(row: TrainingRow) -> tuple[float, int, str]:
    """What puts rows that are surely right first."""
    return -(row.attributes.margin or 0.0), row.attributes.attempt, row.row_id


def why_dropped(judged: Sequence[TrainingRow], run: str) -> str:
    """The commonest reasons with their counts, a broken rule by its words, and what shows the rows themselves."""
    verdicts = [row.verdict for row in judged if row.verdict and not row.verdict.keeps]
    kinds = Counter(str(one)[:_RULE_CHARACTERS] if one.kind == "rule" else one.kind for one in verdicts)
    counted_kinds = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(_REASONS_LISTED))
    line = f"{kinds.total()} of {len(judged)} rows were dropped"
    line += f", most for {counted_kinds}" if counted_kinds else ""
    return f"{line}. `tunesmith report {run}` shows rows with their reasons"


_NOTES_MOST = 6
"""Kinds of doubt that a result names, the commonest: a person reads them."""


@dataclass(slots=True)
class Doubts:
    """What code doubts of a person's rows that are trained on all the same."""

    _rows: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Kind and rule, or kind and nothing → the rows."""
    _reasons: dict[str, str] = field(default_factory=dict)
    """Kind → what was found in the first row."""

    def add(self, row: TrainingRow, doubt: Verdict) -> None:
        """Note a doubt; one of a broken rule is counted by the rule, others by their kind."""
        self._rows.setdefault((doubt.kind, doubt.reason if doubt.kind == RULE else ""), []).append(row.row_id)
        self._reasons.setdefault(doubt.kind, str(doubt))

    def notes(self, rows: int) -> tuple[str, ...]:
        """A sentence for each kind of doubt, the commonest first; `rows` of the person's there are in all."""
        lines = []
        for (kind, rule), ids in sorted(self._rows.items(), key=lambda pair: -len(pair[1]))[:_NOTES_MOST]:
            what = (
                f"do not keep what your examples seemed to say ({rule})"
                if rule
                else f"look odd ({self._reasons[kind]})"
            )
            lines.append(
                f"{len(ids)} of your {rows} rows {what}; they are trained on as they are, the first is {ids[0]}"
            )
        return tuple(lines)
