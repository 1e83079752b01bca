"""What was kept, by label, against what was drawn; and why the rest was dropped, in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.faults import ORDINARY
from tunesmith.tools.data.spec import Attribute, Spec

_REASONS_TOLD, _RULE_CHARACTERS = 3, 100
_SHARE_OFF = 0.3
"""A label's share of the kept rows may be so far from what was drawn, in parts of it."""
_CONSTANT_SHARE, _KEPT_FOR_BALANCE, _EPSILON = 0.8, 0.6, 1e-6
_FEW_ROWS = 12


def balance_of(spec: Spec, kept: Sequence[TrainingRow], told: str) -> dict[str, dict[str, int]]:
    """Kept rows by value of each label, and with or without every other attribute.

    Raises StepFailed where no row of the behaviour is left, or, of rows that were drawn, none of some value of a label.
    """
    rows = [row for row in kept if row.origin not in ORDINARY]
    if not rows:
        raise StepFailed(
            f"no row of the behaviour is left: {told}; drop the rule that most answers break, or let a larger model "
            "write (writer=teacher)"
        )
    balance: dict[str, dict[str, int]] = {}
    for attribute in spec.attributes:
        if not attribute.shown:
            continue
        counts = counted(spec, attribute, rows)
        balance[attribute.name] = counts
        drawn = sum(bool(row.attributes.get("records")) for row in rows)
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
        records = form_of(spec).parse(str(row.completion[-1].get("content") or ""))
        for values in records if records else [{}]:
            value = values.get(attribute.name)
            if attribute.kind == "label" or (attribute.kind == "weekday" and value):
                counts[str(value) if value is not None else "nothing"] += 1
            else:
                counts["given" if value is not None else "nothing"] += 1
    return dict(counts)


def alarms(spec: Spec, judged: Sequence[TrainingRow], kept: Sequence[TrainingRow]) -> tuple[str, ...]:
    """Where the kept rows are not what was drawn: one answer for nearly all, a label too rare, a part never missing."""
    lines = []
    candidates = [row for row in judged if row.origin not in ORDINARY]
    rows = [row for row in kept if row.origin not in ORDINARY]
    if not rows:
        return ()
    commonest, count = Counter(str(row.completion[-1].get("content")) for row in rows).most_common(1)[0]
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
    drawn_rows = any(row.attributes.get("records") for row in rows)
    return (*lines, *(_never_missing(spec, rows) if drawn_rows else ()))


def _never_missing(spec: Spec, rows: Sequence[TrainingRow]) -> list[str]:
    """Attributes that a message may leave out, and nearly no kept row does: nothing would teach what is shown then."""
    records = [one for row in rows for one in form_of(spec).parse(str(row.completion[-1].get("content") or "")) or ()]
    lines = []
    for attribute in spec.attributes if len(records) >= _FEW_ROWS else ():
        missing = sum(one.get(attribute.name) is None for one in records) / len(records)
        if attribute.shown and missing < _SHARE_OFF * attribute.absent_share:
            lines.append(
                f"{attribute.name} is missing in {missing:.0%} of what the kept rows say, {attribute.absent_share:.0%} "
                "was drawn: sentences without it were not read back as such; bring rows of your own that lack it"
            )
    return lines


def _drawn(label: Attribute, rows: Sequence[TrainingRow]) -> dict[str, float]:
    """Share of each value as it was drawn; empty where no row was, so that no share was meant."""
    values = [row.attributes["records"][0].get(label.name) for row in rows if row.attributes.get("records")]
    counts = Counter(values)
    return {value: counts[value] / len(values) for value in label.values} if values else {}


def balanced(spec: Spec, judged: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows without the surplus of label values that are easy to write, late attempts left out first.

    So many go that every value is as near to its drawn share as the rarest one allows, and at most two of five.
    """
    rows = list(judged)
    for label in spec.labels if not form_of(spec).of_records else ():
        drawn_rows = [row for row in rows if row.origin not in ORDINARY and row.attributes.get("records")]
        kept = [row for row in drawn_rows if row.kept]
        if not label.shown or len(kept) < _FEW_ROWS * len(label.values):
            continue
        wanted, by_value = _drawn(label, drawn_rows), dict[str, list[TrainingRow]]()
        for row in sorted(kept, key=lambda row: (int(row.attributes.get("attempt") or 1), row.row_id)):
            by_value.setdefault(str(row.attributes["records"][0].get(label.name)), []).append(row)
        shares = {value: wanted[value] for value in by_value if wanted.get(value)}
        surplus: set[str] = set()
        while shares and len(kept) - len(surplus) > _KEPT_FOR_BALANCE * len(kept):
            total = len(kept) - len(surplus)
            ratios = {value: len(by_value[value]) / total / share for value, share in shares.items()}
            if all(abs(ratio - 1) < _SHARE_OFF - _EPSILON for ratio in ratios.values()):
                break
            surplus.add(by_value[max(ratios, key=lambda value: ratios[value])].pop().row_id)
        why = Verdict("balance", f"{label.name} has rows enough of this value beside those of the rarest")
        rows = [replace(row, verdict=why) if row.row_id in surplus else row for row in rows]
    return rows


def why_dropped(judged: Sequence[TrainingRow], run: str) -> str:
    """The commonest reasons with their counts, a broken rule by its words, and what shows the rows themselves."""
    kinds = Counter(_named(row.verdict) for row in judged if row.verdict and not row.verdict.keeps)
    counted_kinds = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(_REASONS_TOLD))
    line = f"{kinds.total()} of {len(judged)} rows were dropped"
    line += f", most for {counted_kinds}" if counted_kinds else ""
    return f"{line}. `tunesmith report {run}` shows rows with their reasons"


def _named(verdict: Verdict) -> str:
    return str(verdict)[:_RULE_CHARACTERS] if verdict.kind == "rule" else verdict.kind
