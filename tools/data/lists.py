"""Rows that are written as lists: messages of one meaning, and messages of which the answer is itself a list.

A small writer that is given a note keeps to the note's words and misses what they mean; a list of messages of one
meaning, begun with the user's own, it goes on with. The end of one request is the text of several rows. Where the
answer is a list, the message is put together from sentences that were written and read one by one.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.computed import numbers
from tunesmith.tools.data.draw import ITEMS, Draw, Pools, Values, answer_of, draw, in_turn, style
from tunesmith.tools.data.examples import Shown, shown_pieces
from tunesmith.tools.data.message_checks import prompt_problem, verbatim
from tunesmith.tools.data.reader import ToRead
from tunesmith.tools.data.similarity import normal, word_count
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.synthesis import STYLE, Synthesis, Written
from tunesmith.tools.data.writer_requests import (
    LISTED,
    distinct,
    fill_pools,
    filler_request,
    list_request,
    listed_lines,
    manner_of,
)
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


_USES_OF_A_SENTENCE = 2
_SENTENCE_ROUNDS = 3
_FILLERS, _READINGS_OF_NOTHING = (0, 0, 1, 1, 2), 3
"""Sentences beside those of the records; each was read so often, in other orders of the examples, as saying nothing."""


@dataclass(slots=True)
class Lists(Synthesis):
    """The rows of a behaviour whose answers are lists."""

    _lists_seen: dict[str, str] = field(default_factory=dict)

    def write(self) -> list[Written]:
        """Every row, in the order of their numbers; fewer where there are too few sentences."""
        shots, fillers = shown_pieces(self.spec)
        pools = fill_pools(self.spec, self.asker, self.rows, self.seed)
        sentences = self._sentences(pools, shots)
        others = self._fillers(fillers)
        made = [self._list(number, sentences, others, pools) for number in range(self.rows)]
        rows = [one for one in made if one is not None]
        for one in rows:
            self.keep(one)
        return rows

    def _sentences(self, pools: Pools, shots: Sequence[Shown]) -> list[Shown]:
        """Sentences that say one record each, as they were read back."""
        records = round(self.rows * sum(ITEMS) / len(ITEMS) / _USES_OF_A_SENTENCE)
        one = _of_one(self.spec)
        accepted: dict[int, Shown] = {}
        for attempt in range(1, _SENTENCE_ROUNDS + 1):
            pending = [n for n in range(records) if n not in accepted]
            drawn = {n: self._drawn(one, n, attempt, records, pools) for n in pending}
            note = "writing sentences" if attempt == 1 else f"sentences, attempt {attempt}"
            responses = self._written(drawn, shots, f"p{attempt}", "write-piece", note)
            checked = {n: self._checked(drawn[n], responses.get(n), attempt) for n in pending}
            good = {n: one for n, one in checked.items() if not one.problem}
            accepted |= self._agreed(good)
        return [accepted[n] for n in sorted(accepted)]

    def _agreed(self, written: Mapping[int, Written]) -> dict[int, Shown]:
        pieces = {n: Shown(one.message, one.drawn.values, one.drawn.surfaces[0]) for n, one in written.items()}
        if self.reader is None:
            return pieces
        names = {n: f"p{one.attempt}/{n}" for n, one in written.items()}
        read = self.reader.read([ToRead(names[n], piece.message, piece.values) for n, piece in pieces.items()])
        return {n: piece for n, piece in pieces.items() if not read[names[n]].differing}

    def _fillers(self, shown: Sequence[str]) -> list[str]:
        """Sentences of which nothing is noted: those that the reader takes for such."""
        if not shown:
            return []
        number = max(2, round(self.rows / 4 / LISTED))
        requests = [filler_request(self.spec, shown, self.asker.model, f"x/{n}", self.seed) for n in range(number)]
        answers = self.asker.ask(requests, "writing sentences without anything to note")
        lines = distinct(line for identity in sorted(answers) for line in listed_lines(answers[identity].text))
        lines = [line for line in lines if not prompt_problem(self.spec, line) and 2 <= word_count(line) <= 25]
        if self.reader is None:
            return lines
        nothing: Values = dict.fromkeys(a.name for a in self.spec.attributes if a.shown)
        for turn in range(_READINGS_OF_NOTHING):
            read = self.reader.read([ToRead(f"x{turn}/{text}", text, nothing) for text in lines], turn)
            lines = [text for text in lines if not read[f"x{turn}/{text}"].differing]
        return lines

    def _list(self, number: int, sentences: Sequence[Shown], fillers: Sequence[str], pools: Pools) -> Written | None:
        """One row put together: the records' sentences in their order, others among them."""
        rng = random.Random(f"{self.seed}/list/{number}")
        share = self.spec.answer.otherwise_share if self.spec.answer.otherwise and fillers else 0
        empty = share and in_turn([True, *[False] * max(1, round(1 / share) - 1)], f"{self.seed}/empty", number)
        count = 0 if empty else in_turn(ITEMS, f"{self.seed}/lines", number)
        if count > len(sentences):
            return None
        pieces = [self._piece(sentences, number * max(ITEMS) + n, pools) for n in range(count)]
        pieces = list({piece.message: piece for piece in pieces}.values())
        wanted = rng.choice((1, 1, 2, 3)) if empty else rng.choice(_FILLERS)
        others = rng.sample(list(fillers), min(wanted, len(fillers)))
        parts = [(piece.message, piece) for piece in pieces]
        for other in others:
            parts.insert(rng.randint(0, len(parts)), (other, Shown(other, {})))
        example = self.spec.examples[number % len(self.spec.examples)].prompt
        message = joined([text for text, _ in parts], example)
        drawn = Draw(
            f"w{number:05d}",
            tuple(verbatim(self.spec, piece.values, message) for piece in pieces),
            tuple(piece.surfaces for piece in pieces),
            number,
        )
        problem, words = prompt_problem(self.spec, message), normal(message, digits_count=True)
        first = self._lists_seen.setdefault(words, drawn.row_id)  # lists share sentences: only a whole one is a copy
        if not problem and first != drawn.row_id:
            problem = f"duplicate: the same sentences as row {first}"
        return Written(drawn, message, answer_of(self.spec, drawn), problem)

    def _piece(self, sentences: Sequence[Shown], place: int, pools: Pools) -> Shown:
        """A sentence of the manner that was drawn for this place: what is hard to write is not left out for that."""
        wanted = manner_of(self.spec, draw(_of_one(self.spec), self.seed, place, pools).values)
        fitting = [one for one in sentences if manner_of(self.spec, one.values) == wanted] or sentences
        return in_turn(fitting, f"{self.seed}/pieces", place)


def _of_one(spec: Spec) -> Spec:
    """The spec of one record of a list."""
    return spec.model_copy(update={"answer": spec.answer.model_copy(update={"form": "text"})})


def joined(parts: Sequence[str], example: str) -> str:
    """Sentences as one message, in the manner of an example: by lines, by commas, or one after another."""
    if "\n" in example:
        return "\n".join(parts)
    if example == example.lower():
        bare = [part.rstrip(".").lower() for part in parts]
        return ", ".join(bare)
    ended = [part if part[-1:] in ".!?" else part + "." for part in parts]
    text = " ".join(part[:1].upper() + part[1:] for part in ended)
    return text if example[-1:] in ".!?" else text.rstrip(".")
