"""Whether a message ends with a value tells nothing of its label: what one row ends with is put on another.

A list goes on as it began, so that a small writer gives every message of one label a signature and none of another
(of 132 kept rows all 32 of one label had none, and the 100 of the others all had one); a model then learns that in
place of the label. Where a value may be missing, which of a label's messages have one is evened out by code: an ending
that is the value alone is taken off, or put behind a message that has none. A value that stands in a sentence is left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tunesmith.tools.data.record_values import excluded
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import holds

_ENDS_A_SENTENCE = ".!?…。！？"
_LOOSE = "\n,;:-–—"
"""What stands between a sentence and a value behind it, and goes with the value."""
_SPARE = 1
"""Rows of a label that may have the value, or lack it, beyond its share."""


class Ending(NamedTuple):
    """What a message ends with: a value, with what parts it from the sentence before."""

    text: str
    value: str


class Changed(NamedTuple):
    """A message that ends in another way, and the value that it says now; None: none."""

    message: str
    name: str
    value: str | None


def ending_of(message: str, value: str) -> Ending | None:
    """The ending of a message that is a value alone; None where it stands elsewhere, in a sentence, or twice."""
    whole = message.rstrip()
    bare = whole.rstrip(_ENDS_A_SENTENCE)
    before = bare[: len(bare) - len(value)].rstrip(" ") if bare.endswith(value) else ""
    if not before or before[-1] not in _ENDS_A_SENTENCE + _LOOSE:
        return None
    body = before.rstrip(_LOOSE + " ")
    return None if not body or holds(body, value) else Ending(whole[len(body) :], value)


def with_ending(message: str, ending: Ending) -> tuple[str, str] | None:
    """A message with an ending behind it, and the value that it then says, both in small letters where the message is;
    None where it says the value already."""
    body, (text, value) = message.rstrip(), ending
    if holds(body, value) or not body:
        return None
    if body == body.lower():
        text, value = text.lower(), value.lower()
    if text.lstrip()[:1].isalnum():  # the sentence before it has ended
        body += "" if body[-1] in _ENDS_A_SENTENCE else "."
    else:
        body = body.rstrip(".")
    return body + text, value


@dataclass(slots=True)
class Endings:
    """The endings that were seen, and how many rows of each label have one."""

    spec: Spec
    seed: int
    _seen: dict[str, dict[Ending, None]] = field(default_factory=dict)
    _rows: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    @property
    def _optional(self) -> list[Attribute]:
        return [a for a in self.spec.attributes if a.shown and a.plain and a.kind == "copied" and a.absent_share]

    def see(self, message: str, values: Mapping[str, str | None]) -> None:
        """Take the endings of a message."""
        for attribute in self._optional:
            if (value := values.get(attribute.name)) and (ending := ending_of(message, value)):
                self._seen.setdefault(attribute.name, {})[ending] = None

    def evened(self, row_id: str, label: str, message: str, values: Mapping[str, str | None]) -> Changed | None:
        """The message as it is to end, where a label's rows have a value too often or too seldom; None: as it is."""
        self.see(message, values)
        changed = None
        for attribute in self._optional:
            if excluded(attribute, values):
                continue
            name, value = attribute.name, values.get(attribute.name)
            if changed is None and self._too_many(label, attribute, has=value is not None):
                changed = self._other(row_id, attribute, message, value)
            says = changed.value if changed and changed.name == name else value
            self._rows[label, name, says is not None] += 1
        return changed

    def _too_many(self, label: str, attribute: Attribute, *, has: bool) -> bool:
        """Whether one more row of a label that has the value, or lacks it, is more than its share."""
        counts = [self._rows[label, attribute.name, one] for one in (False, True)]
        share = 1 - attribute.absent_share if has else attribute.absent_share
        return counts[has] + 1 > share * (sum(counts) + 1) + _SPARE

    def _other(self, row_id: str, attribute: Attribute, message: str, value: str | None) -> Changed | None:
        if value is not None:
            ending = ending_of(message, value)
            return Changed(message.rstrip()[: -len(ending.text)], attribute.name, None) if ending else None
        endings: Sequence[Ending] = [*self._seen.get(attribute.name, ())]
        # by the row: a resumed step draws the same
        for ending in random.Random(f"{self.seed}/ending/{row_id}").sample(endings, len(endings)):
            if whole := with_ending(message, ending):
                return Changed(whole[0], attribute.name, whole[1])
        return None
