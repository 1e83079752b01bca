"""Further messages out of those that there are: near misses, variants that say other values, and proposed cases.

A variant of a kept row is for a later epoch: "dentist on tuesday at 4 pm" is "dentist on friday at 11:30" the next time
it is seen, right by construction as its first form is, and no model is asked. Only values that code draws and finds are
drawn anew: typed ones, and numbers that tell a label.

Near misses look like a behaviour's messages and want an ordinary answer: the user's own, and edits of kept messages. An
edit changes as little as it can; it is taken where the reader is surer of it being another kind than of any of the
user's examples. Ordinary requests in fixed forms about a whole message, or about values that the behaviour reads or
answers, need no model: they are a fifth at most. No word is picked out of a message: code cannot tell which are things.

Further target cases are proposed by a served model; the user sees them and may drop any.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from itertools import count as count_from
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import yaml

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.stats import detectable_text, minimum_detectable_effect
from tunesmith.tools.core.yaml_file import dump_yaml, read_own
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.draw import answer_of, in_turn
from tunesmith.tools.data.record_values import drawn_number, number_ranges
from tunesmith.tools.data.row_checks import drawn_problem, prompt_problem, verbatim
from tunesmith.tools.data.similarity import Likeness, word_count
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.spec_suites import HEADERS, TARGET, as_yaml, open_test
from tunesmith.tools.data.typed_values import GLUED, draw_value, holds, surface_of
from tunesmith.tools.data.writer_requests import (
    distinct_texts,
    kind_of,
    list_start,
    listed_topics,
    prompt_text,
    topics_request,
    written_message,
)
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse, assistant, system, user
from tunesmith.tools.serving.requests import Asker

_ALIKE = 88.0
"""Similarity, of 100, from which an edit is the message itself, or one that was made already."""
_SPARE = 1.6
"""Edits that are asked for, for each that is wanted: the reader takes some for the kind still."""
_ROUNDS = 3
"""In which what is lacking is asked for again, of other messages and other changes."""
FORMED_SHARE = 0.2
"""Of the near misses, those that templates give, at most."""
_WORDS_MAX, _TOKENS_MIN = 60, 60
"""Of a message that can be a near miss; of an edit, whose message may be short."""
_TEMPERATURE = 0.8
_LAPS = 4
"""Times that each text is put into a form, each time into another one."""
_ODD = re.compile(r"[\[\]{}<>|`]|^\(")


def near_misses(
    spec: Spec,
    asker: Asker,
    count: int,
    seed: int,
    messages: Sequence[str],
    other_kinds: Callable[[Sequence[str]], list[str]],
) -> list[str]:
    """`count` near misses, fewer where the writer finds none; `other_kinds` says which texts are none of the kind."""
    own = list(spec.near_misses)[:count]
    formed = formed_near_misses(spec, seed, messages)[: round(FORMED_SHARE * count)]
    wanted = max(0, count - len(own) - len(formed))
    seen = Likeness((text, text) for text in (*(example.prompt for example in spec.examples), *own, *messages))
    accepted: list[str] = []
    numbers = count_from(0)
    for _ in range(_ROUNDS if messages else 0):
        asked = list(islice(numbers, round(_SPARE * (wanted - len(accepted)))))
        edited_from = {n: in_turn(messages, f"{seed}/edited", n) for n in asked}
        requests = [edit_request(text, asker.model, f"near/{n}", n, seed) for n, text in edited_from.items()]
        answers = asker.ask(requests, "editing messages into near misses") if requests else {}
        edited = []
        for answer in (answers[request.id] for request in requests if request.id in answers):
            text = _usable(answer.text) if answer.finish_reason != "length" else ""
            if text and not seen.match(text, _ALIKE, digits_count=True, contained=False):
                seen.add(text, text)
                edited.append(text)
        accepted += other_kinds(edited)[: wanted - len(accepted)] if edited else []
    return distinct_texts([*own, *accepted, *formed])


def edit_request(message: str, model: str, identity: str, turn: int, seed: int) -> ChatRequest:
    """Asks for a message with as few changes as make it one of another kind."""
    turns = [system(prompt_text("write-near-misses"))]
    for before, change, after in _data()["shots"]:
        turns += [user(_asked(before, change)), assistant(after)]
    change = in_turn(_data()["changes"], f"{seed}/change", turn)
    turns.append(user(_asked(message, change)))
    return ChatRequest(identity, model, turns, max(_TOKENS_MIN, len(message)), _TEMPERATURE, extra={"top_k": 40})


def _asked(message: str, change: str) -> str:
    return f"Message: {message}\nIt becomes: {change}"


def _usable(answered: str) -> str:
    """The first line of an answer where it can be a message."""
    line = written_message(answered.strip().split("\n")[0])
    return line if 2 <= word_count(line) <= _WORDS_MAX and not _ODD.search(line) and line[-1:] not in ":：" else ""


# Without a model


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    document: Mapping[str, Any] = read_own(files("tunesmith.prompts") / "near-misses.yaml")
    return document


def _templates(spec: Spec) -> Mapping[str, Mapping[str, list[str]]]:
    """Those of the behaviour's language; English where there are none."""
    known: Mapping[str, Any] = _data()["forms"]
    return known[next((name for name in known if name in spec.language), "English")]  # type: ignore[no-any-return]


def formed_near_misses(spec: Spec, seed: int, messages: Sequence[str], *, tests: bool = False) -> list[str]:
    """Near misses in fixed forms, in turn: about whole `messages` of the kind, about the values that its labels have,
    and about values such as it reads.

    Those of `tests` have other forms than those that rows are made of.
    """
    rng = random.Random(seed)
    messages = [text for text in messages if word_count(text) <= _WORDS_MAX]
    labels = distinct_texts(
        [value for label in spec.labels if label.shown for value in label.values if value.isalpha()]
    )
    typed = [attribute for attribute in spec.attributes if attribute.shown and attribute.typed]
    drawn = [surface_of(one, draw_value(one, rng), rng) for one in typed for _ in range(_LAPS)]
    turns = []
    for of, texts in (("messages", messages), ("words", labels if len(labels) > 1 else ()), ("values", drawn)):
        templates = rng.sample(templates := _templates(spec)[of]["tests" if tests else "rows"], len(templates))
        near = [
            templates[(place + lap) % len(templates)].format(text, texts[(place + 1) % len(texts)])
            for lap in range(_LAPS)
            for place, text in enumerate(rng.sample(list(texts), len(texts)))
        ]
        turns.append(near)
    return distinct_texts([text for turn in zip_longest(*turns) for text in turn if text])


# Variants

EACH = 8
"""Of a row: with the row itself three for each of three epochs, which is what a small model is given."""
_ROWS_MOST = 1_000
"""Of more rows each is seen once, whatever its forms are."""
_TRIES = 6
"""Draws for one variant: a message that says the same, or does not say what was drawn, is drawn anew."""


def variants(spec: Spec, rows: Sequence[TrainingRow], each: int = EACH) -> list[TrainingRow]:
    """`each` variants of every row that has such values and was made here; fewer where they do not come out right."""
    varied: list[TrainingRow] = []
    if not form_of(spec).one_record or len(rows) > _ROWS_MOST:
        return varied
    for row in rows:
        drawn = row.attributes.draw
        if drawn is None or len(row.prompt) > 2 or len(row.completion) > 1:
            continue
        there = {spec.text_of(row.prompt)}
        for number in range(1, each + 1):
            if (one := _variant(spec, row, drawn, number)) and spec.text_of(one.prompt) not in there:
                there.add(spec.text_of(one.prompt))
                varied.append(one)
    return varied


def _variant(spec: Spec, row: TrainingRow, drawn: Draw, number: int) -> TrainingRow | None:
    """A row with other values in the places of its own; None where one stands there twice, or none comes out right."""
    message, old = spec.text_of(row.prompt), drawn.surfaces[0]
    swapped = [
        a for a in spec.attributes if a.name in old and (a.typed or number_ranges(a)) and holds(message, old[a.name])
    ]
    spans = {a.name: _spans(message, old[a.name]) for a in swapped}
    if not swapped or any(len(places) != 1 for places in spans.values()):
        return None
    rng = random.Random(f"{row.row_id}/{number}")
    for _ in range(_TRIES):
        values, surfaces, text = dict(drawn.values), dict(old), message
        for attribute in sorted(swapped, key=lambda a: spans[a.name][0], reverse=True):
            name = attribute.name
            values[name], surfaces[name] = _another(attribute, str(values[name]), rng)
            start, end = spans[name][0]
            text = text[:start] + _cased(surfaces[name], message[start:end], at_start=start == 0) + text[end:]
        if text == message or drawn_problem(spec, values, surfaces, text):
            continue
        changed = replace(drawn, records=(verbatim(spec, values, text),), surfaces=(surfaces,))
        attributes = replace(row.attributes, draw=changed, text=text, variant_of=row.row_id)
        prompt = [*row.prompt[: len(row.prompt) - len(spec.turns(text))], *spec.turns(text)]
        answer = [form_of(spec).turn(answer_of(spec, changed))]
        return replace(row, row_id=f"{row.row_id}.{number}", prompt=prompt, completion=answer, attributes=attributes)
    return None


def _another(attribute: Attribute, value: str, rng: random.Random) -> tuple[str, str]:
    """A value and how the message says it; a label keeps its value, for the rest of the message may speak of it."""
    if attribute.kind == "label":
        return value, drawn_number(attribute, value, rng)
    drawn = draw_value(attribute, rng)
    return drawn, surface_of(attribute, drawn, rng)


def _spans(message: str, part: str) -> list[tuple[int, int]]:
    """Where a part stands in a message and not inside a longer word."""
    pattern = rf"(?<!{GLUED}){re.escape(part)}(?!{GLUED})"
    return [match.span() for match in re.finditer(pattern, message, re.IGNORECASE)]


def _cased(new: str, old: str, *, at_start: bool) -> str:
    """A capital at the start of a message stays one."""
    return new[:1].upper() + new[1:] if at_start and old[:1].isupper() else new


# Further cases

_SHOTS = 4
"""Examples that a writer goes on from; another few for each message, so that messages differ."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a further message is about, and the examples that it is shown behind."""

    row_id: str
    subject: str
    shots: tuple[int, ...]


def draw_row(behaviour: Spec, subjects: Sequence[str], seed: int, index: int) -> Subject:
    """What message number `index` is about: the subjects in turn, each once before any comes again."""
    rng = random.Random(f"{seed}/{index}")
    subject = in_turn(subjects, str(seed), index) if subjects else ""
    count = len(behaviour.examples)
    return Subject(f"w{index:05d}", subject, tuple(rng.sample(range(count), min(_SHOTS, count))))


def case_request(behaviour: Spec, drawn: Subject, model: str, temperature: float) -> ChatRequest:
    """Asks for one message about the drawn subject: the writer goes on with a list of such messages."""
    prompts = [behaviour.examples[shot].prompt for shot in drawn.shots]
    about = f" The last one is about: {drawn.subject}." if drawn.subject else ""
    asked = f"Messages that different people sent. What all of them have in common: {kind_of(behaviour)}.{about}"
    end = f"\n{len(prompts) + 2}." if any("\n" in text for text in prompts) else "\n"
    tokens = max(60, round(max(map(len, prompts)) * 0.6))
    return list_start(asked, prompts, model, drawn.row_id, tokens, temperature, {"top_p": 0.95, "stop": [end]})


CASE_SEED = 880_401
"""Of proposed cases: rows for training are drawn with the seed of `generate`."""
_CASES_ALIKE = 85.0
"""Similarity, of 100, from which two cases ask the same."""
_CASE_ROUNDS = 3
"""What is lacking is asked for again; a small model repeats itself."""
_MORE = re.compile(r"-more-(\d+)$")


@dataclass(frozen=True, slots=True)
class Proposed:
    """Further messages for the target suite, none of them in it yet."""

    prompts: tuple[str, ...]
    asked: int
    """How many messages the model was asked for."""
    detectable: str
    """What the examples and these cases together can show, in a sentence."""
    minimum_detectable_effect: float
    """The same as a share; infinite where nothing can be shown."""


async def propose_cases(
    behaviour: Spec, chat: ChatClient, *, model: str, count: int, concurrency: int = 16
) -> Proposed:
    """Ask a served model for `count` messages that are like neither an example nor one another.

    Fewer come back where the model repeats itself. Raises StepFailed where it does not answer at all.
    """
    prompts: list[str] = []
    seen = Likeness((example.prompt, example.prompt) for example in behaviour.examples)
    asked = 0
    async with chat as client:
        subjects = await _subjects(client, behaviour, model, count, concurrency)
        for attempt in range(_CASE_ROUNDS):
            wanted = round((count - len(prompts)) * 1.5)
            if wanted <= 0:
                break
            drawn = [draw_row(behaviour, subjects, CASE_SEED + attempt, index) for index in range(wanted)]
            requests = [case_request(behaviour, one, model, _TEMPERATURE) for one in drawn]
            asked += wanted
            for response in await _answers(client, requests, concurrency):
                prompt = written_message(response.text)
                if prompt_problem(behaviour, prompt) or seen.match(prompt, _CASES_ALIKE, digits_count=True):
                    continue
                seen.add(prompt, prompt)
                prompts.append(prompt)
    chosen = tuple(prompts[:count])
    cases = len(behaviour.examples) + len(chosen)
    return Proposed(chosen, asked, detectable_text(cases), minimum_detectable_effect(cases))


async def _subjects(client: ChatClient, behaviour: Spec, model: str, count: int, concurrency: int) -> list[str]:
    prompts, several = [example.prompt for example in behaviour.examples], range(max(2, -(-count // 8)))
    requests = [topics_request(behaviour, {}, prompts, model, f"s{n:03d}", CASE_SEED) for n in several]
    answers = await _answers(client, requests, concurrency)
    return distinct_texts(topic for answer in answers for topic in listed_topics(answer.text))


async def _answers(client: ChatClient, requests: Sequence[ChatRequest], concurrency: int) -> list[ChatResponse]:
    """The answers in the order of their requests. Raises StepFailed where there is none."""
    answers: dict[str, ChatResponse] = {}
    await client.complete_many(
        requests, concurrency=concurrency, on_result=lambda response: answers.update({response.id: response})
    )
    answered = [answers[request.id] for request in requests if not answers[request.id].error]
    if requests and not answered:
        raise StepFailed(f"none of {len(requests)} requests was answered: {answers[requests[0].id].error}")
    return answered


def add_cases(suite: Path, behaviour: Spec, prompts: Sequence[str], *, judged: bool = True) -> None:
    """Add messages to a target suite that `write_suites` wrote; what is in it stays, but for its comments.

    Raises BadInput for another file, and leaves it as it was.
    """
    document = yaml.safe_load(suite.read_text())
    try:
        ids = [str(test["metadata"]["case_id"]) for test in document["tests"]]
    except (KeyError, TypeError):
        raise BadInput(f"{suite} is not a target suite of a described behaviour; add a test to it by hand") from None
    numbers = [int(match[1]) for case_id in ids if (match := _MORE.search(case_id))]
    first = max(numbers, default=0) + 1
    added = (open_test(behaviour, prompt, n, judged=judged) for n, prompt in enumerate(prompts, first))
    tests = [as_yaml(behaviour, one) for one in added]
    atomic_write(suite, HEADERS[TARGET] + dump_yaml({**document, "tests": [*document["tests"], *tests]}))
