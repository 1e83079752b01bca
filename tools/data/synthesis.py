"""Rows from drawn attributes: a message is written for them, checked by code, read back by the model, and then kept.

Three ways, one for each kind of spec: messages that begin with a fact (`seeded`), messages that are written whole, and
lists, whose messages are put together from sentences that were written and read one by one. The answer is composed by
code from what was drawn; only where nothing decides it does a model write it (`answers`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_log import Asker
from tunesmith.tools.data.draw import LINES, Draw, Pools, Values, answer_of, draw, in_turn
from tunesmith.tools.data.example_values import Shown, shown_examples, shown_pieces
from tunesmith.tools.data.fact_messages import compose, go_on_messages, problems, taken, typed
from tunesmith.tools.data.message_checks import (
    drawn_problem,
    names_label,
    note_problem,
    prompt_problem,
    said_in,
    verbatim,
)
from tunesmith.tools.data.pools import fill_pools
from tunesmith.tools.data.reader import Reader, ToRead
from tunesmith.tools.data.reading import Disagreement
from tunesmith.tools.data.similarity import Likeness, normal, word_count
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.writer_requests import (
    LISTED,
    Note,
    distinct,
    filler_request,
    listed_lines,
    manner_of,
    messages_request,
    written_messages,
)
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

ALIKE = 90.0
"""Similarity, of 100, from which a message is written anew for being like another row's."""
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False, "top_k": 40}
_NAMING = 3
"""One row of so many may say its label by its own name."""
_NOTES = 5
"""Messages that are asked for together."""
_USES_OF_A_SENTENCE = 2
_SENTENCE_ROUNDS = 3
_FILLERS, _READINGS_OF_NOTHING = (0, 0, 1, 1, 2), 3
"""Sentences beside those of the records; each was read so often, in other orders of the examples, as saying nothing."""
_RARE, _TRIES_OF_RARE, _REDRAWS = 0.8, 3, 20
"""A label's value is rare below this part of what was drawn of it; its rows get so many tries more, each drawn anew."""


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
    finish_reason: str | None = None


@dataclass(slots=True)
class Synthesis:
    """The rows of one behaviour, written by one model."""

    spec: Spec
    asker: Asker
    rows: int
    seed: int
    temperature: float
    tries: int
    reader: Reader | None = None
    keep: Callable[[Written], None] = lambda written: None
    """Gets each row as soon as it is done."""
    seen: Likeness = field(default_factory=Likeness)
    _lists_seen: dict[str, str] = field(default_factory=dict)
    _requests: dict[str, str] = field(default_factory=dict)
    """Row → the request that its message came with: messages of one request are not independent."""

    def write(self) -> list[Written]:
        """Every row, in the order of their numbers."""
        if self.spec.seeded:
            return self._from_facts()
        if form_of(self.spec).of_records:
            return self._lists()
        return self._messages()

    # Messages that begin with a fact

    def _from_facts(self) -> list[Written]:
        pending = {one.row_id: one for one in (draw(self.spec, self.seed, n) for n in range(self.rows))}
        done: dict[str, Written] = {}
        assert self.spec.writing is not None
        for attempt in range(1, self.tries + 1):

            def take(response: ChatResponse, attempt: int = attempt) -> None:
                row_id = response.id.partition("/")[2]
                if row_id not in pending:
                    return
                drawn = pending[row_id]
                sentences = taken(self.spec, drawn, response.text)
                message = compose(self.spec, drawn, sentences)
                problem = next(iter(problems(self.spec, drawn, message)), "")
                if attempt == self.tries or (sentences and not problem):
                    del pending[row_id]
                    answer = answer_of(self.spec, drawn)
                    done[row_id] = Written(drawn, message, answer, problem, attempt=attempt)
                    self.keep(done[row_id])

            requests = [
                ChatRequest(
                    f"f{attempt}/{row_id}", self.asker.model, go_on_messages(self.spec, drawn),
                    self.spec.writing.max_tokens, self.temperature, extra={**_CONTINUE, "stop": ["\n"]},
                )
                for row_id, drawn in pending.items()
            ]  # fmt: skip
            self.asker.ask(requests, "writing" if attempt == 1 else f"attempt {attempt}", take)
        return [done[row_id] for row_id in sorted(done)]

    # Messages that are written whole

    def _messages(self) -> list[Written]:
        pools = fill_pools(self.spec, self.asker, self.rows, self.seed)
        shots = shown_examples(self.spec)
        done: dict[str, Written] = {}
        good: list[Written] = []
        pending = list(range(self.rows))
        for attempt in range(1, self.tries + _TRIES_OF_RARE + 1):
            drawn = {n: self._redrawn(n, attempt, pools) for n in pending}
            notes = [Note(one.row_id, one.values, one.surfaces[0]) for one in drawn.values()]
            note = "writing messages" if attempt == 1 else f"attempt {attempt}"
            more = [Shown(one.message, one.drawn.values, one.drawn.surfaces[0]) for one in good]
            messages = self._written(notes, shots, f"m{attempt}", "write-message", note, more)
            checked = [self._checked(drawn[n], messages.get(f"w{n:05d}", ""), attempt) for n in pending]
            read = [self._first_of_its_kind(one) for one in self._read_back(checked)]
            good += [one for one in read if not one.problem]
            rare = self._rare(good) if self.tries <= attempt < self.tries + _TRIES_OF_RARE else set()
            for one in read:
                if not one.problem or (attempt >= self.tries and not rare & set(one.drawn.values.items())):
                    done[one.drawn.row_id] = one
                    self.keep(one)
            pending = [n for n in pending if f"w{n:05d}" not in done]
            if not pending:
                break
        return [done[row_id] for row_id in sorted(done)]

    def _rare(self, good: Sequence[Written]) -> set[tuple[str, str | None]]:
        """Labels with the values that too few good rows have, by what is drawn: their rows get further tries."""
        found: set[tuple[str, str | None]] = set()
        for label in self.spec.labels:
            total = sum(value.weight for value in label.values.values())
            counts = Counter(one.drawn.values.get(label.name) for one in good)
            wanted = {name: value.weight / total * len(good) for name, value in label.values.items()}
            found |= {(label.name, name) for name in wanted if counts[name] < _RARE * wanted[name]}
        return found

    def _written(
        self, notes: Sequence[Note], shots: Sequence[Shown], prefix: str, page: str, told: str,
        more: Sequence[Shown] = (),
    ) -> dict[str, str]:  # fmt: skip
        """The messages of the notes, by their rows; some are asked for together."""
        alike: dict[str, list[Note]] = {}
        for note in notes:  # a writer keeps to one manner where it has to keep to one alone
            alike.setdefault(repr(manner_of(self.spec, dict(note.values))), []).append(note)
        batches = [group[n : n + _NOTES] for group in alike.values() for n in range(0, len(group), _NOTES)]
        requests = [
            messages_request(
                self.spec, batch, shots, self.asker.model, self.temperature, f"{prefix}/{n}", page=page, more=more
            )
            for n, batch in enumerate(batches)
        ]
        self._requests |= {note.row_id: r.id for r, batch in zip(requests, batches, strict=True) for note in batch}
        answers = self.asker.ask(requests, told)
        texts: dict[str, str] = {}
        for request, batch in zip(requests, batches, strict=True):
            if request.id in answers:
                texts |= written_messages(request, batch, answers[request.id].text)
        return texts

    def _redrawn(self, number: int, attempt: int, pools: Pools) -> Draw:
        """The draw of a row; a later attempt is of the same manner and has other open values and words."""
        return self._drawn(self.spec, number, attempt, self.rows, pools)

    def _drawn(self, spec: Spec, number: int, attempt: int, count: int, pools: Pools) -> Draw:
        first = draw(spec, self.seed, number, pools)
        for lap in range(_REDRAWS if attempt > 1 else 0):
            again = draw(spec, self.seed, number + (attempt - 1 + lap * _REDRAWS) * count, pools)
            if manner_of(spec, first.values) == manner_of(spec, again.values):
                return replace(again, row_id=first.row_id)
        return first

    def _checked(self, drawn: Draw, text: str, attempt: int) -> Written:
        message = self._in_manner(text, drawn)
        values = drawn.values
        surfaces = said_in(self.spec, values, drawn.surfaces[0], message)
        request = {"request": self._requests[drawn.row_id]} if drawn.row_id in self._requests else {}
        drawn = replace(drawn, surfaces=(surfaces,), told=drawn.told | request)
        problem = prompt_problem(self.spec, message) or note_problem(self.spec, message)
        problem = problem or drawn_problem(self.spec, values, surfaces, message)
        if not problem and drawn.order % _NAMING and (named := names_label(self.spec, values, message)):
            problem = f"leftover: the message names its label, {named!r}, as none of the examples does"
        problem = problem or self._copy(message)
        exact = replace(drawn, records=(verbatim(self.spec, values, message),))
        answer = answer_of(self.spec, exact)
        return Written(exact, message, answer, problem, attempt=attempt)

    def _copy(self, message: str) -> str:
        like = self.seen.match(message, ALIKE, digits_count=True)
        return f"duplicate: {like.score:.0f} of 100 like row {like.name}" if like else ""

    def _first_of_its_kind(self, one: Written) -> Written:
        """The row, a copy where one like it was found good before; what was read as wrong stands in nobody's way."""
        problem = one.problem or self._copy(one.message)
        if not problem:
            self.seen.add(one.drawn.row_id, one.message)
        return replace(one, problem=problem)

    def _in_manner(self, message: str, drawn: Draw) -> str:
        """Typed as the user's examples are: as many in small letters, as many without a mark at the end."""
        prompts = [example.prompt for example in self.spec.examples]
        typing = prompts[in_turn(range(len(prompts)), f"{self.seed}/typing", drawn.order)]
        if typing == typing.lower() and any(c.isalpha() for c in typing):
            return typed(message, "lower")
        return message if typing[-1:] in ".!?" else typed(message, "no-end")

    def _read_back(self, written: Sequence[Written]) -> list[Written]:
        """The messages with what the reader told of them."""
        if self.reader is None:
            return list(written)
        readable = [one for one in written if not one.problem]
        ids = {one.drawn.row_id: f"{one.attempt}/{one.drawn.row_id}" for one in readable}
        read = self.reader.disagreements([ToRead(ids[o.drawn.row_id], o.message, o.drawn.values) for o in readable])
        kinds = self.reader.of_kind({ids[one.drawn.row_id]: one.message for one in readable})
        made = []
        for one in written:
            identity = ids.get(one.drawn.row_id)
            if one.problem or identity is None:
                made.append(one)
                continue
            reading, kind = tuple(read[identity]), kinds.get(identity)
            problem = _reading_problem(reading)
            if not problem and kind is not None and kind < self.reader.trust.kind_cut:
                problem = f"kind: its reader does not take the message for one of the kind ({kind:.0%})"
            made.append(replace(one, read=reading, of_kind=kind, problem=problem))
        return made

    # Lists

    def _lists(self) -> list[Written]:
        shots, fillers = shown_pieces(self.spec)
        pools = fill_pools(self.spec, self.asker, self.rows, self.seed)
        sentences = self._sentences(pools, shots, fillers)
        others = self._fillers(fillers)
        rows = []
        for number in range(self.rows):
            written = self._list(number, sentences, others, pools)
            if written is not None:
                self.keep(written)
                rows.append(written)
        return rows

    def _sentences(self, pools: Pools, shots: Sequence[Shown], fillers: Sequence[str]) -> list[Shown]:
        """Sentences that say one record each, as they were read back."""
        records = round(self.rows * sum(LINES) / len(LINES) / _USES_OF_A_SENTENCE)
        one = _of_one(self.spec)
        accepted: dict[int, Shown] = {}
        for attempt in range(1, _SENTENCE_ROUNDS + 1):
            pending = [n for n in range(records) if n not in accepted]
            drawn = {n: self._drawn(one, n, attempt, records, pools) for n in pending}
            notes = [Note(str(n), d.values, d.surfaces[0]) for n, d in drawn.items()]
            note = "writing sentences" if attempt == 1 else f"sentences, attempt {attempt}"
            messages = self._written(notes, shots, f"p{attempt}", "write-piece", note)
            sentences = {}
            for n in pending:
                message = messages.get(str(n), "")
                values = drawn[n].values
                surfaces = said_in(self.spec, values, drawn[n].surfaces[0], message)
                fits = message and not prompt_problem(self.spec, message) and not note_problem(self.spec, message)
                if fits and not drawn_problem(self.spec, values, surfaces, message):
                    sentences[n] = Shown(message, verbatim(self.spec, values, message), surfaces)
            accepted |= self._agreed(sentences, attempt)
        return [accepted[n] for n in sorted(accepted)]

    def _agreed(self, shown: dict[int, Shown], attempt: int) -> dict[int, Shown]:
        if self.reader is None:
            return shown
        to_read = [ToRead(f"p{attempt}/{n}", piece.message, piece.values) for n, piece in shown.items()]
        read = self.reader.disagreements(to_read)
        return {n: piece for n, piece in shown.items() if not read[f"p{attempt}/{n}"]}

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
            read = self.reader.disagreements([ToRead(f"x{turn}/{text}", text, nothing) for text in lines], turn)
            lines = [text for text in lines if not read[f"x{turn}/{text}"]]
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


def _reading_problem(read: Sequence[Disagreement]) -> str:
    if not read:
        return ""
    one = read[0]
    return f"reading: {one.attribute} was drawn as {one.drawn!r} and read as {one.read!r}"


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
