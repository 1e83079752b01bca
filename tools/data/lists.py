"""Rows whose answer is a list: their messages are put together from sentences that were written and read one by one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.tools.data.draw import LINES, Draw, Pools, Values, answer_of, draw, in_turn
from tunesmith.tools.data.example_values import Shown, shown_pieces
from tunesmith.tools.data.message_checks import prompt_problem, verbatim
from tunesmith.tools.data.pools import fill_pools
from tunesmith.tools.data.reader import ToRead
from tunesmith.tools.data.similarity import normal, word_count
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.synthesis import Synthesis, Written
from tunesmith.tools.data.writer_requests import LISTED, distinct, filler_request, listed_lines, manner_of

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
        records = round(self.rows * sum(LINES) / len(LINES) / _USES_OF_A_SENTENCE)
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
        count = 0 if empty else in_turn(LINES, f"{self.seed}/lines", number)
        if count > len(sentences):
            return None
        pieces = [self._piece(sentences, number * max(LINES) + n, pools) for n in range(count)]
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
