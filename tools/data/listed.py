"""Rows whose answer labels alone decide: their messages are written as lists, each of one meaning.

A small writer that is given a note keeps to the note's words and misses what they mean; a list of messages of one
meaning, begun with the user's own, it goes on with. The end of one request is the text of several rows.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
_WAVES = 3
"""Each of the first round but the first is written without the words that gave labels away in those before."""
_GIVES_AWAY, _TIMES = 0.12, 3
"""A word gives a label away that is in this share of its lines, and so many times as often as in those of any other."""
_WORD = re.compile(r"[^\W\d_]{3,}")
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

    _lines: dict[str, list[str]] = field(default_factory=dict)
    """Manner → what was written for it."""

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
        written: dict[int, ChatResponse] = {}
        parts = list(self._parts(drawn))
        waves = _WAVES if not self._lines else 1
        for wave in range(waves):
            without = self._giveaways() if wave else {}
            made = self._asked(parts[wave::waves], drawn, shots, prefix, told, more, without)
            for number, response in made.items():
                self._lines.setdefault(self._manner(drawn[number]), []).append(response.text)
            written |= made
        return written

    def _asked(
        self, parts: Sequence[list[int]], drawn: Mapping[int, Draw], shots: Sequence[Shown], prefix: str, told: str,
        more: Sequence[Shown], without: Mapping[str, Sequence[str]],
    ) -> dict[int, ChatResponse]:  # fmt: skip
        requests = []
        for part in parts:
            first, identity = drawn[part[0]], f"{prefix}/{part[0]}"
            manner, rng = manner_of(self.spec, first.values), random.Random(f"{self.seed}/{identity}")
            own, before = ([one.message for one in of if _has(one, manner)] for of in (shots, more))
            begun = rng.sample(own, min(_OWN, len(own))) + rng.sample(before, min(_MORE, len(before)))
            style_told, banned = first.told.get(STYLE, ""), without.get(self._manner(first), ())
            request = list_request(
                self.spec, manner, begun, len(part), style_told, self.asker.model, self.temperature, identity
            )
            requests.append(replace(request, extra={**request.extra, "bad_words": list(banned)}) if banned else request)
        answers = self.asker.ask(requests, told)
        written: dict[int, ChatResponse] = {}
        for part, request in zip(parts, requests, strict=True):
            if request.id in answers:
                answer = answers[request.id]
                cut = answer.finish_reason == "length"  # then its last line is no whole one
                lines = listed_lines((answer.text.rpartition("\n")[0] if cut else answer.text) + "\n")
                whole = replace(answer, finish_reason="stop")
                made = zip(part, lines, strict=False)
                written |= {number: replace(whole, id=f"{prefix}/{number}", text=line) for number, line in made}
        return written

    def _giveaways(self) -> dict[str, list[str]]:
        """Manner → the words that tell it from the others, as they are written at the start of a line and within."""
        counts = {manner: _shares(lines) for manner, lines in self._lines.items()}
        found: dict[str, list[str]] = {}
        for manner, shares in counts.items():
            others = [other for name, other in counts.items() if name != manner]
            elsewhere = {word: max((other.get(word, 0.0) for other in others), default=1.0) for word in shares}
            telling = [w for w, share in shares.items() if share >= max(_GIVES_AWAY, _TIMES * elsewhere[w])]
            found[manner] = [form for word in sorted(telling) for form in (word, word.capitalize())]
        return found

    def _manner(self, one: Draw) -> str:
        return str(sorted(manner_of(self.spec, one.values).items()))

    def _parts(self, drawn: Mapping[int, Draw]) -> Iterator[list[int]]:
        """The rows in lists of a few, each of one manner and one style."""
        alike: dict[str, list[int]] = {}
        for number, one in drawn.items():
            alike.setdefault(f"{self._manner(one)}/{one.told.get(STYLE)}", []).append(number)
        most = max(2, min(LINES, len(drawn) // _AT_ONCE))
        for rows in alike.values():
            yield from (rows[start : start + most] for start in range(0, len(rows), most))


def _shares(lines: Sequence[str]) -> dict[str, float]:
    counts = Counter(word for line in lines for word in set(_WORD.findall(line.lower())))
    return {word: count / len(lines) for word, count in counts.items()}


def _has(one: Shown, manner: Mapping[str, str | None]) -> bool:
    return all(one.values.get(name) == value for name, value in manner.items())
