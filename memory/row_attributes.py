"""What is known of a training row beside its conversation: what was drawn for it, how it came about, how it did.

Stored flat, as one JSON object with the names of these fields; what has its default is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from tunesmith.memory.json_values import as_record


@dataclass(frozen=True, slots=True)
class Draw:
    """All that was decided about a row before its message was written."""

    row_id: str
    records: tuple[dict[str, str | None], ...]
    """Path of a value → the value, or None where the message does not say it. One record, but for answers that are
    lists."""
    surfaces: tuple[dict[str, str], ...]
    """Of each record: path → how the message says its value, letter for letter."""
    order: int
    """Turns the examples that a writer is shown, so that each is the last one in turn."""
    told: dict[str, str] = field(default_factory=dict)
    """What else was decided, as the style of its message; of rows of before, the fact that the message begins with."""

    @property
    def values(self) -> dict[str, str | None]:
        """The values of a row that has one record."""
        return self.records[0] if self.records else {}


@dataclass(frozen=True, slots=True)
class RowAttributes:
    """The attributes of one row; of a row that somebody brought most have their defaults."""

    draw: Draw | None = None
    """None for a row that was not drawn here."""
    text: str = ""
    """The message as it was written, without the prompt around it."""
    attempt: int = 1
    problem: str = ""
    """Why it cannot be kept as it is, told while it was written; the first word is the kind."""
    read: tuple[tuple[str, str, str], ...] = ()
    """Attribute, as drawn, as read back."""
    margin: float | None = None
    """Log-odds, in nats, by which the reader took it for what it is kept as; None where nothing was read."""
    relabelled: tuple[tuple[str, str], ...] = ()
    """Attribute, as drawn, where the message says another value and the row is kept under that."""
    finish_reason: str | None = None
    agreed: bool | None = None
    """Whether most of several independent answers came to the same; None where there was one."""
    of_kind: float | None = None
    """Probability, by the reader, that the message is of the kind."""
    judged: float | None = None
    """Probability, by the judge, that the answer is right."""
    hidden: bool = False
    """Whether it is a blind case, or gives one away: no view shows what it says."""
    variant_of: str = ""
    """The row that this is another form of."""
    values_at: tuple[tuple[int, int], ...] = ()
    """Where the answer says its values, as ranges of characters; nothing where that is not known."""
    tools: tuple[Mapping[str, object], ...] = ()
    """Offered in its conversation, in OpenAI's form."""
    number: int | None = None
    """Of the record in the source that it was imported from."""
    others: Mapping[str, object] = field(default_factory=dict)
    """What else a stored row has: of another version, or a user's own."""

    @classmethod
    def of(cls, stored: Mapping[str, object]) -> RowAttributes:
        """The attributes that a stored row's JSON holds; what is not of its field's type is one of the others."""
        rest = dict(stored)
        known = {name: _READ[name](rest[name]) for name in _READ if name in rest and _fits(name, rest[name])}
        draw = _draw(rest)
        for name in (*known, *(_DRAWN if draw else ())):
            del rest[name]
        return as_record(cls, {"draw": draw, **known, "others": rest})

    def as_json(self) -> dict[str, object]:
        """For its file and its table."""
        drawn = asdict(self.draw) if self.draw else {}
        own = {one.name: getattr(self, one.name) for one in _OWN if getattr(self, one.name) != one.default}
        return {**self.others, **drawn, **own}


_DRAWN = tuple(one.name for one in fields(Draw))
_OWN = tuple(one for one in fields(RowAttributes) if one.name not in ("draw", "others"))
_LISTED = (list, tuple)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,), "attempt": (int,), "problem": (str,), "read": _LISTED, "margin": (int, float),
    "relabelled": _LISTED, "finish_reason": (str,), "agreed": (bool,),
    "of_kind": (int, float), "judged": (int, float), "hidden": (bool,), "variant_of": (str,), "tools": _LISTED,
    "number": (int,), "values_at": _LISTED,
}  # fmt: skip
_READ: Mapping[str, Callable[..., object]] = {
    **dict.fromkeys(_TYPES, lambda value: value), "tools": tuple,
    **dict.fromkeys(("read", "relabelled", "values_at"), lambda value: tuple(map(tuple, value))),
}  # fmt: skip


def _fits(name: str, value: object) -> bool:
    if isinstance(value, bool) and bool not in _TYPES[name]:  # to Python True is an int
        return False
    kinds: Mapping[str, type | tuple[type, ...]] = {
        "tools": Mapping,
        "read": Sequence,
        "relabelled": Sequence,
        "values_at": _LISTED,
    }
    inner = kinds.get(name)
    listed = not isinstance(value, _LISTED) or inner is None or all(isinstance(item, inner) for item in value)
    return isinstance(value, _TYPES[name]) and listed


def _draw(stored: Mapping[str, object]) -> Draw | None:
    if not all(name in stored for name in ("records", "surfaces")):
        return None
    records, surfaces = stored["records"], stored["surfaces"]
    decisions, order, row_id = stored.get("told", {}), stored.get("order", 0), stored.get("row_id", "")
    if not isinstance(records, list) or not isinstance(surfaces, list) or not isinstance(decisions, dict):
        return None
    listed = all(isinstance(item, dict) for item in (*records, *surfaces))
    if not listed or type(order) is not int or not isinstance(row_id, str):
        return None
    return Draw(row_id, tuple(records), tuple(surfaces), order, decisions)
