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

from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.arithmetic import number_of
from tunesmith.tools.core.similarity import normal, word_count
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.augmentation import Endings
from tunesmith.tools.data.draw import ITEMS, Pools, draw, fill_pools, in_turn, is_empty, style
from tunesmith.tools.data.reader import WHOLE, Reading, ToRead
from tunesmith.tools.data.record_values import Values, excluded, number_ranges
from tunesmith.tools.data.row_checks import prompt_problem, verbatim
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.synthesis import Synthesis, Written, go_together, with_values
from tunesmith.tools.data.writer_requests import (
    LISTED,
    STYLE,
    Shot,
    distinct_texts,
    distractor_request,
    example_shots,
    list_request,
    listed_lines,
    profile_of,
    sentence_shots,
    values_of,
)
from tunesmith.tools.serving.client import ChatResponse

LINES, _AT_ONCE = 5, 16
"""Messages that one request is asked for at most, for a small writer strays from the meaning in longer lists; fewer
where there would not be so many requests at once."""
_LONGEST, _SHORT, _OWN, _MORE = 240, 0.75, 4, 2
"""Characters of an example that is a line of a list, and the share of examples that are to be no longer; the lines that
a list begins with: examples, and good rows."""
_WAVES, _WITHOUT = 3, 2
"""Each of the first round but the first is written without the words that gave labels away in those before; so is the
second round: were it free, what a reader refuses for being unusual would be replaced by what says those words. Later
ones are free, for there may be no other way to say it."""
_GIVES_AWAY, _TIMES = 0.12, 3
"""A word gives a label away that is in this share of its lines, and so many times as often as in those of any other: a
rarer word is no rule to learn, and without what all labels say nothing could be said."""
_MOST_BANNED = 32
"""Words that a request forbids: vLLM takes 128 sequences of tokens (`VLLM_MAX_NUM_BAD_WORDS`), and makes of each word's
two forms one at the start of a text and one within."""
_SAYS = "says"
"""Which of the values that may be missing a message is to say, among what was decided of its row."""
_ENDING = "ending"
"""Which value code took off a message's end, or put there, among what was decided of its row."""
_SURE_OF_NONE = 1.5
"""Log-odds, in nats, from which a reader's word counts that a message lacks a value: over four to one."""
_WORD = re.compile(r"[^\W\d_]{3,}")
_BLOCK, _STYLED = 30, 3
"""Rows that are written in one style; of so many blocks one has a style, for it leads a small writer astray."""


def labels_lead(spec: Spec) -> bool:
    """Whether messages are written in lists of one meaning: an answer shows labels, each a name with a meaning, and
    beside them only values that a message shows by itself, to be read out of it; and most examples are short."""
    form, visible = form_of(spec), [a for a in spec.attributes if a.shown]
    labels = [a for a in visible if a.kind == "label"]
    led = all(a.plain and not number_ranges(a) and not a.absent_share for a in labels)
    others = [a for a in visible if a.kind != "label"]
    readable = all(a.plain and (a.kind == "copied" or a.typed or _is_count(spec, a)) for a in others)
    typed = sum(a.typed for a in others)  # of two, code cannot tell which a figure in the message is of
    lines = [e for e in spec.examples if len(e.prompt) <= _LONGEST and "\n" not in e.prompt]
    short = len(lines) >= _SHORT * len(spec.examples)
    composed = form.composed and not form.of_records
    return composed and bool(labels) and led and readable and typed <= 1 and short


def reads_values(spec: Spec) -> bool:
    """Whether an answer shows anything beside its labels."""
    return any(a.shown and a.kind != "label" for a in spec.attributes)


def _is_count(spec: Spec, attribute: Attribute) -> bool:
    """Whether every example shows a number, or nothing, for a value in words of its own."""
    values = values_of(spec, attribute.name, {})
    return attribute.kind == "text" and bool(values) and all(number_of(value) is not None for value in values)


@dataclass(slots=True)
class Listed(Synthesis):
    """The rows of a behaviour that labels lead: these are drawn, and what stands beside them is read."""

    _lines: dict[str, list[str]] = field(default_factory=dict)
    """Profile, as text → what was written for it."""
    _rounds: int = 0
    _endings: Endings = field(init=False)

    def __post_init__(self) -> None:
        self.reads_values = reads_values(self.spec)
        self._endings = Endings(self.spec, self.seed)
        for shot in example_shots(self.spec):
            self._endings.see(shot.message, shot.values)

    def _drawn(self, spec: Spec, number: int, attempt: int, count: int, pools: Pools) -> Draw:
        # no super(): `slots` makes the class anew, and it finds the old one
        chosen = Synthesis._drawn(self, spec, number, attempt, count, pools)
        if not self.reads_values:
            return chosen
        labels = {label.name for label in spec.labels}
        record = {path: value if path in labels else None for path, value in chosen.values.items()}
        says = ", ".join(name for name in self._optional if chosen.values.get(name) is not None)
        return replace(chosen, records=(record,), surfaces=({},), told=chosen.told | {_SAYS: says})

    def _as_read(self, one: Written, reading: Reading) -> Written:
        """As it is read; a value that is not there has to be one that may lack, and its reader has to be sure of it."""
        read = Synthesis._as_read(self, one, reading)  # no super(), as above
        values = read.drawn.values  # what was not drawn is no other value than the drawn one
        read = replace(read, was={**values, **{name: read.was.get(name) for name in values if read.was.get(name)}})
        if read.problem or not self.reads_values:
            return read
        if not go_together(self.spec, values):
            return replace(read, problem="value: the message lacks a value that its answer shows")
        margins = reading.margins
        for a in self.spec.attributes:
            read_none = a.shown and not a.typed and values.get(a.name) is None and not excluded(a, values)
            if read_none and margins.get(a.name, margins.get(WHOLE, 0.0)) < _SURE_OF_NONE:
                return replace(
                    read, problem=f"reading: its reader is not sure that the message says nothing of {a.name}"
                )
        return self._evened(read)

    def _evened(self, one: Written) -> Written:
        """The row, its message with another ending where its label's rows have a value too often or too seldom."""
        drawn = one.drawn
        changed = self._endings.evened(drawn.row_id, self._profile(drawn), one.message, drawn.values)
        if changed is None:
            return one
        says = {changed.name: changed.value}
        surfaces = {name: text for name, text in drawn.surfaces[0].items() if name != changed.name}
        surfaces |= {changed.name: changed.value} if changed.value else {}
        ended = "put on" if changed.value else "taken off"
        again = with_values(self.spec, drawn, {**drawn.values, **says}, surfaces)
        again = replace(again, told=again.told | {_ENDING: f"{changed.name} {ended}"})
        row = self._composed(
            again, changed.message, prompt_problem(self.spec, changed.message), one.attempt, one.was | says
        )
        return one if row.problem else replace(row, read=one.read, margin=one.margin)

    @property
    def _optional(self) -> list[str]:
        """What a message may lack: whether it does is drawn, so that both are taught."""
        return [a.name for a in self.spec.attributes if a.shown and a.kind != "label" and a.absent_share]

    def _pools(self) -> Pools:
        """A list is about different things by itself; of a value only whether there is one is drawn."""
        return lambda attribute, values, turn: attribute.name if attribute.shown else ""

    def _style(self, number: int, attempt: int) -> str:
        block = number // _BLOCK if attempt == 1 else attempt
        return style(self.seed, block + attempt) if block % _STYLED == _STYLED - 1 else ""

    def _written(
        self, drawn: Mapping[int, Draw], shots: Sequence[Shot], prefix: str, page: str, note: str,
        more: Sequence[Shot] = (),
    ) -> dict[int, ChatResponse]:  # fmt: skip
        """One request for a few rows of the same labels and style; a row that the list is too short for has none."""
        written: dict[int, ChatResponse] = {}
        batches = list(self._batches(drawn))
        waves = _WAVES if not self._rounds else 1
        self._rounds += 1
        for wave in range(waves):
            without = self._giveaways() if wave or self._rounds == _WITHOUT else {}
            responses = self._asked(batches[wave::waves], drawn, shots, prefix, note, more, without)
            for number, response in responses.items():
                self._lines.setdefault(self._profile(drawn[number]), []).append(response.text)
            written |= responses
        return written

    def _asked(
        self, batches: Sequence[list[int]], drawn: Mapping[int, Draw], shots: Sequence[Shot], prefix: str, note: str,
        more: Sequence[Shot], without: Mapping[str, Sequence[str]],
    ) -> dict[int, ChatResponse]:  # fmt: skip
        requests = []
        for part in batches:
            first, identity = drawn[part[0]], f"{prefix}/{part[0]}"
            # by the request: a resumed step draws the same
            profile, rng = self._labels_of(first), random.Random(f"{self.seed}/{identity}")
            says = [name for name in self._optional if name in first.told.get(_SAYS, "").split(", ")]
            own, before = (self._beginnings(of, profile, says) for of in (shots, more))
            begun = rng.sample(own, min(_OWN, len(own))) + rng.sample(before, min(_MORE, len(before)))
            style_text, banned = first.told.get(STYLE, ""), without.get(self._profile(first), ())
            request = list_request(
                self.spec, profile, begun, len(part), style_text, self.asker.model, self.temperature, identity, says
            )
            requests.append(replace(request, extra={**request.extra, "bad_words": list(banned)}) if banned else request)
        answers = self.asker.ask(requests, note)
        written: dict[int, ChatResponse] = {}
        for part, request in zip(batches, requests, strict=True):
            if request.id in answers:
                answer = answers[request.id]
                cut = answer.finish_reason == "length"  # then its last line is no whole one
                lines = listed_lines((answer.text.rpartition("\n")[0] if cut else answer.text) + "\n")
                whole = replace(answer, finish_reason="stop")
                numbered = zip(part, lines, strict=False)
                written |= {number: replace(whole, id=f"{prefix}/{number}", text=line) for number, line in numbered}
        return written

    def _beginnings(self, shots: Sequence[Shot], profile: Mapping[str, str | None], says: Sequence[str]) -> list[str]:
        """Lines of these labels, those first that say the same of what may lack; a long one where there is no other."""
        alike = [one for one in shots if _has(one, profile)]
        same = [o for o in alike if all((o.values.get(n) is not None) == (n in says) for n in self._optional)]
        lines = [" ".join(one.message.split()) for one in same or alike]
        return [line for line in lines if len(line) <= _LONGEST] or lines[:1]

    def _giveaways(self) -> dict[str, list[str]]:
        """Profile → the words that tell it from the others, as they are written at the start of a line and within."""
        counts = {profile: _shares(lines) for profile, lines in self._lines.items()}
        matches_in: dict[str, list[str]] = {}
        for profile, shares in counts.items():
            others = [other for name, other in counts.items() if name != profile]
            elsewhere = {word: max((other.get(word, 0.0) for other in others), default=1.0) for word in shares}
            telling = [w for w, share in shares.items() if share >= max(_GIVES_AWAY, _TIMES * elsewhere[w])]
            # what tells most first, and by name of equals
            most_telling = sorted(telling, key=lambda word: (elsewhere[word] - shares[word], word))[:_MOST_BANNED]
            matches_in[profile] = [form for word in sorted(most_telling) for form in (word, word.capitalize())]
        return matches_in

    def _labels_of(self, one: Draw) -> dict[str, str | None]:
        return {label.name: one.values.get(label.name) for label in self.spec.labels if label.shown}

    def _profile(self, one: Draw) -> str:
        return str(sorted(self._labels_of(one).items()))

    def _batches(self, drawn: Mapping[int, Draw]) -> Iterator[list[int]]:
        """The rows in lists of a few, each of one profile and one style."""
        alike: dict[str, list[int]] = {}
        for number, one in drawn.items():
            alike.setdefault(f"{self._profile(one)}/{one.told.get(STYLE)}/{one.told.get(_SAYS)}", []).append(number)
        most = max(2, min(LINES, len(drawn) // _AT_ONCE))
        for rows in alike.values():
            yield from (rows[start : start + most] for start in range(0, len(rows), most))


def _shares(lines: Sequence[str]) -> dict[str, float]:
    counts = Counter(word for line in lines for word in set(_WORD.findall(line.lower())))
    return {word: count / len(lines) for word, count in counts.items()}


def _has(one: Shot, profile: Mapping[str, str | None]) -> bool:
    return all(one.values.get(name) == value for name, value in profile.items())


_USES_OF_A_SENTENCE = 2
"""Lists that a sentence stands in: half as many have to be written and read."""
_SENTENCE_ROUNDS = 3
"""What the writer missed, or the reader refused, is drawn and written again: bounded, as some combinations it never
gets right."""
_DISTRACTORS, _READINGS_OF_NOTHING = (0, 0, 1, 1, 2), 3
"""Sentences beside those of the records; each was read so often, in other orders of the examples, as saying nothing: in
one order alone it overlooks some."""


@dataclass(slots=True)
class Lists(Synthesis):
    """The rows of a behaviour whose answers are lists."""

    _lists_seen: dict[str, str] = field(default_factory=dict)

    def write(self) -> list[Written]:
        """Every row, in the order of their numbers; fewer where there are too few sentences."""
        shots, distractors = sentence_shots(self.spec)
        pools = fill_pools(self.spec, self.asker, self.rows, self.seed)
        sentences = self._sentences(pools, shots)
        others = self._distractors(distractors)
        candidates = [self._list(number, sentences, others, pools) for number in range(self.rows)]
        rows = [one for one in candidates if one is not None]
        for one in rows:
            self.keep(one)
        return rows

    def _sentences(self, pools: Pools, shots: Sequence[Shot]) -> list[Shot]:
        """Sentences that say one record each, as they were read back."""
        records = round(self.rows * sum(ITEMS) / len(ITEMS) / _USES_OF_A_SENTENCE)
        one = _of_one(self.spec)
        accepted: dict[int, Shot] = {}
        for attempt in range(1, _SENTENCE_ROUNDS + 1):
            pending = [n for n in range(records) if n not in accepted]
            drawn = {n: self._drawn(one, n, attempt, records, pools) for n in pending}
            note = "writing sentences" if attempt == 1 else f"sentences, attempt {attempt}"
            responses = self._written(drawn, shots, f"p{attempt}", "write-piece", note)
            checked = {n: self._checked(drawn[n], responses.get(n), attempt) for n in pending}
            good = {n: one for n, one in checked.items() if not one.problem}
            accepted |= self._agreed(good)
        return [accepted[n] for n in sorted(accepted)]

    def _agreed(self, written: Mapping[int, Written]) -> dict[int, Shot]:
        sentences = {n: Shot(one.message, one.drawn.values, one.drawn.surfaces[0]) for n, one in written.items()}
        names = {n: f"p{one.attempt}/{n}" for n, one in written.items()}
        to_read = [ToRead(names[n], sentence.message, sentence.values) for n, sentence in sentences.items()]
        read = self.reader.read(to_read)
        return {n: sentence for n, sentence in sentences.items() if not read[names[n]].differing}

    def _distractors(self, examples: Sequence[str]) -> list[str]:
        """Sentences of which nothing is noted: those that the reader takes for such."""
        if not examples:
            return []
        # each line then stands in some three rows
        model, several = self.asker.model, range(max(2, round(self.rows / 4 / LISTED)))
        requests = [distractor_request(self.spec, examples, model, f"x/{n}", self.seed) for n in several]
        answers = self.asker.ask(requests, "writing sentences without anything to note")
        lines = distinct_texts(line for identity in sorted(answers) for line in listed_lines(answers[identity].text))
        lines = [
            line for line in lines if not prompt_problem(self.spec, line) and 2 <= word_count(line) <= 25
        ]  # a sentence
        nothing: Values = dict.fromkeys(a.name for a in self.spec.attributes if a.shown)
        for turn in range(_READINGS_OF_NOTHING):
            read = self.reader.read([ToRead(f"x{turn}/{text}", text, nothing) for text in lines], turn)
            lines = [text for text in lines if not read[f"x{turn}/{text}"].differing]
        return lines

    def _list(self, number: int, sentences: Sequence[Shot], distractors: Sequence[str], pools: Pools) -> Written | None:
        """One row put together: the records' sentences in their order, others among them."""
        rng = random.Random(f"{self.seed}/list/{number}")
        empty = bool(distractors) and is_empty(self.spec, self.seed, number)
        count = 0 if empty else in_turn(ITEMS, f"{self.seed}/lines", number)
        if count > len(sentences):
            return None
        chosen = [self._sentence(sentences, number * max(ITEMS) + n, pools) for n in range(count)]
        chosen = list({sentence.message: sentence for sentence in chosen}.values())
        wanted = rng.choice((1, 1, 2, 3)) if empty else rng.choice(_DISTRACTORS)  # a message of no sentence is none
        others = rng.sample(list(distractors), min(wanted, len(distractors)))
        placed = [(sentence.message, sentence) for sentence in chosen]
        for other in others:
            placed.insert(rng.randint(0, len(placed)), (other, Shot(other, {})))
        example = self.spec.examples[number % len(self.spec.examples)].prompt
        message = joined([text for text, _ in placed], example)
        drawn = Draw(
            f"w{number:05d}",
            tuple(verbatim(self.spec, sentence.values, message) for sentence in chosen),
            tuple(sentence.surfaces for sentence in chosen),
            number,
        )
        problem, words = prompt_problem(self.spec, message), normal(message, digits_count=True)
        first = self._lists_seen.setdefault(words, drawn.row_id)  # lists share sentences: only a whole one is a copy
        if not problem and first != drawn.row_id:
            problem = f"duplicate: the same sentences as row {first}"
        return Written(drawn, message, form_of(self.spec).compose(drawn.records), problem)

    def _sentence(self, sentences: Sequence[Shot], place: int, pools: Pools) -> Shot:
        """A sentence of the profile that was drawn for this place: what is hard to write is not left out for that."""
        wanted = profile_of(self.spec, draw(_of_one(self.spec), self.seed, place, pools).values)
        fitting = [one for one in sentences if profile_of(self.spec, one.values) == wanted] or sentences
        return in_turn(fitting, f"{self.seed}/pieces", place)


def _of_one(spec: Spec) -> Spec:
    """The spec of one record of a list."""
    return spec.model_copy(update={"answer": spec.answer.model_copy(update={"form": "text"})})


def joined(sentences: Sequence[str], example: str) -> str:
    """Sentences as one message, in the style of an example: by lines, by commas, or one after another."""
    if "\n" in example:
        return "\n".join(sentences)
    if example == example.lower():
        bare = [part.rstrip(".").lower() for part in sentences]
        return ", ".join(bare)
    ended = [part if part[-1:] in ".!?" else part + "." for part in sentences]
    text = " ".join(part[:1].upper() + part[1:] for part in ended)
    return text if example[-1:] in ".!?" else text.rstrip(".")
