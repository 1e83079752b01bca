"""Rows whose answer labels alone decide: their messages are written as lists, each of one meaning.

A small writer that is given a note keeps to the note's words and misses what they mean; a list of messages of one
meaning, begun with the user's own, it goes on with. The end of one request is the text of several rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.draw import Draw, Pools
from tunesmith.tools.data.example_values import Shown
from tunesmith.tools.data.ranges import numbers
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.styles import style
from tunesmith.tools.data.synthesis import STYLE, Synthesis
from tunesmith.tools.data.writer_requests import list_request, listed_lines, manner_of
from tunesmith.tools.serving.client import ChatResponse

LINES, _AT_ONCE = 5, 16
"""Messages that one request is asked for at most, for a small writer strays from the meaning in longer lists; fewer
where there would not be so many requests at once."""
_LONGEST, _OWN, _MORE = 240, 4, 2
"""Characters of an example that is a line of a list; the lines that a list begins with: examples, and good rows."""
_BLOCK, _STYLED = 30, 3
"""Rows that are written in one style; of so many blocks one has a style, for it leads a small writer astray."""


def told_by_labels(spec: Spec) -> bool:
    """Whether labels, each a name with a meaning, are all that an answer shows, and examples are short lines."""
    form, shown = form_of(spec), [a for a in spec.attributes if a.shown]
    labels = all(a.kind == "label" and a.plain and not numbers(a) and not a.absent_share for a in shown)
    lines = all("\n" not in one.prompt and len(one.prompt) <= _LONGEST for one in spec.examples)
    return form.composed and not form.of_records and bool(shown) and labels and lines


@dataclass(slots=True)
class Listed(Synthesis):
    """The rows of a behaviour that labels alone decide."""

    def _pools(self) -> Pools:
        return lambda attribute, values, turn: ""  # a list is about different things by itself

    def _style(self, number: int, attempt: int) -> str:
        block = number // _BLOCK if attempt == 1 else attempt
        return style(self.seed, block + attempt) if block % _STYLED == _STYLED - 1 else ""

    def _written(
        self, drawn: Mapping[int, Draw], shots: Sequence[Shown], prefix: str, page: str, told: str,
        more: Sequence[Shown] = (),
    ) -> dict[int, ChatResponse]:  # fmt: skip
        """One request for a few rows of the same labels and style; a row that the list is too short for has none."""
        parts = {f"{prefix}/{part[0]}": part for part in self._parts(drawn)}
        requests = []
        for identity, part in parts.items():
            manner, rng = manner_of(self.spec, drawn[part[0]].values), random.Random(f"{self.seed}/{identity}")
            own, before = ([one.message for one in of if _has(one, manner)] for of in (shots, more))
            begun = rng.sample(own, min(_OWN, len(own))) + rng.sample(before, min(_MORE, len(before)))
            requests.append(
                list_request(
                    self.spec, manner, begun, len(part), drawn[part[0]].told.get(STYLE, ""), self.asker.model,
                    self.temperature, identity,
                )
            )  # fmt: skip
        answers = self.asker.ask(requests, told)
        written: dict[int, ChatResponse] = {}
        for identity, part in parts.items():
            if identity in answers:
                lines = listed_lines(answers[identity].text)
                made = zip(part, lines, strict=False)
                written |= {
                    n: replace(answers[identity], id=f"{prefix}/{n}", text=s, finish_reason="stop") for n, s in made
                }
        return written

    def _parts(self, drawn: Mapping[int, Draw]) -> Iterator[list[int]]:
        """The rows in lists of a few, each of one manner and one style."""
        alike: dict[str, list[int]] = {}
        for number, one in drawn.items():
            alike.setdefault(f"{sorted(manner_of(self.spec, one.values).items())}/{one.told.get(STYLE)}", []).append(
                number
            )
        most = max(2, min(LINES, len(drawn) // _AT_ONCE))
        for rows in alike.values():
            yield from (rows[start : start + most] for start in range(0, len(rows), most))


def _has(one: Shown, manner: Mapping[str, str | None]) -> bool:
    return all(one.values.get(name) == value for name, value in manner.items())
