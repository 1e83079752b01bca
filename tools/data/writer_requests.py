"""What a served writer is asked for, and what is taken from its answers: values, messages, sentences, near misses.

A small model does best what is shown to it as a list to go on with; so every request ends in a list that was begun with
the user's own examples. Nothing here sends a request.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import accumulate
from statistics import mean

from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.similarity import normal, overlap, word_count
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_shape import fill
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.record_values import Values, number_in, number_ranges, values_at
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import holds, is_number, matches_in
from tunesmith.tools.serving.client import ChatRequest, assistant, user
from tunesmith.tools.serving.requests import storable

STYLE = "style"
"""How a message is to be written, among what was decided of its row."""
LISTED, TOPICS = 10, 12
"""Asked for in one request: in longer lists a small writer repeats itself."""
_TOPIC_SHOTS, _TOPIC_SHOT_CHARS, _TOPIC_WORDS = 3, 300, 10
"""Examples in a request for topics and the characters of each; words of a topic: a longer line is a message
already."""
_GO_ON: Mapping[str, object] = {"continue_final_message": True, "add_generation_prompt": False}
_SAMPLED: Mapping[str, object] = {"top_k": 60}
"""top_k, for top_p sorts the whole vocabulary for every token: 2.7 times as many tokens a second on two cores."""
_LIST_TEMPERATURE = 0.9
"""High, so that requests which begin alike list other things."""
_TOKENS_PER_CHAR, _TOKENS_OF_STYLE = 0.4, 60
"""A style may make a message longer than all examples are."""
_SHOTS, _SHOT_CHARS, _TURNS = 5, 2_400, 6
"""Examples that a writer is shown, their characters, and how many ways of showing them take turns: always the same ones
first, its messages would all be like the last of them."""
_ANGLES = (
    "", "Take everyday ones.", "Take unusual ones.", "Take ones that a beginner brings up.", "Take small details.",
    "Take ones that an expert brings up.", "Take ones from work.", "Take ones from home.", "Take quick ones.",
    "Take ones from many countries.", "Take ones for a special occasion.", "Take old and new ones.",
)  # fmt: skip
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Shot:
    """An example as a writer is shown it: its message, the values behind its answer, and their words in the message."""

    message: str
    values: Values
    surfaces: dict[str, str] = field(default_factory=dict)


def example_shots(spec: Spec) -> list[Shot]:
    """The examples with their values, whole messages; of an answer that is a list, its first record alone."""
    shots = []
    for example in spec.examples:
        records = form_of(spec).parse(example.answer)
        values: Values = records[0] if records else dict.fromkeys(spec.answer.needs)
        surfaces = surfaces_in(spec, values, example.prompt)
        shots.append(Shot(example.prompt, values, surfaces))
    return shots


def surfaces_in(spec: Spec, values: Values, message: str) -> dict[str, str]:
    """How the message says each value that stands in it letter for letter or that code can find."""
    surfaces = {}
    for path, attribute in spec.leaves(values):
        value = values.get(path)
        if value is None or attribute.kind == "computed":
            continue
        if number := number_in(attribute, value, message):
            surfaces[path] = number
        elif holds(message, value):
            if attribute.typed or attribute.kind == "copied":
                surfaces[path] = value
        elif attribute.typed and (there := matches_in(attribute, message)):
            surfaces[path] = there[0]
    return surfaces


def sentence_shots(spec: Spec) -> tuple[list[Shot], list[str]]:
    """Of the examples of an answer that is a list: the sentence of each record, and the sentences without one."""
    shots: list[Shot] = []
    distractors: list[str] = []
    for example in spec.examples:
        records = form_of(spec).parse(example.answer) or []
        sentences = _sentences(example, len(records))
        left = list(sentences)
        for record in records:
            best = max(left, key=lambda sentence: overlap(record, sentence), default="")
            if best and overlap(record, best):
                shots.append(Shot(best, record, surfaces_in(spec, record, best)))
                left.remove(best)
        distractors += [sentence for sentence in left if len(sentence.split()) > 1]
    return shots, distractors


def _sentences(example: Example, records: int) -> list[str]:
    """The sentences of an example; its clauses where it has fewer sentences than records."""
    sentences = [s.strip() for s in _SENTENCE_END.split(example.prompt) if s.strip()]
    whole: list[str] = []
    for sentence in sentences:  # "Mr. Roth" ends no sentence
        if whole and re.search(r"\b[A-Z][a-z]{0,2}\.$", whole[-1]):
            whole[-1] += " " + sentence
        else:
            whole.append(sentence)
    if len(whole) < records:
        whole = [part.strip() for sentence in whole for part in re.split(r"[;,]\s+", sentence)]
    return whole


def values_of(spec: Spec, name: str, where: Values) -> list[str]:
    """What the examples say of an attribute, first where their labels are those of `where`; else all of them."""
    records = [record for example in spec.examples for record in (form_of(spec).parse(example.answer) or [])]
    all_values = [value for record in records for value in values_at(record, name)]
    fitting = [
        value
        for record in records
        if all(record.get(n) == v for n, v in where.items())
        for value in values_at(record, name)
    ]
    return list(dict.fromkeys(fitting or ([] if where else all_values)))


def prompt_text(page: str, /, **values: object) -> str:
    """A prompt of the package with its places filled."""
    text = (files("tunesmith.prompts") / f"{page}.md").read_text(encoding="utf-8").strip()
    return fill(text, {key: str(value) for key, value in values.items()})


def kind_of(spec: Spec) -> str:
    """When the behaviour applies, as the middle of a sentence."""
    return spec.when.rstrip(". ")


def list_start(
    asked: str, begun: Sequence[str], model: str, identity: str, tokens: int,
    temperature: float = _LIST_TEMPERATURE, sampled: Mapping[str, object] = _SAMPLED,
) -> ChatRequest:  # fmt: skip
    """Asks for a list behind the lines that it begins with: the model goes on with the next number."""
    extra = {**_GO_ON, **sampled}
    lines = "\n".join([*(f"{n}. {text}" for n, text in enumerate(begun, 1)), f"{len(begun) + 1}."])
    return ChatRequest(identity, model, [user(asked), assistant(lines)], tokens, temperature, extra=extra)


# Values of open attributes


def values_request(
    spec: Spec, attribute: Attribute, given: Values, examples: Sequence[str], model: str, identity: str, seed: int
) -> ChatRequest:
    """Asks for values of an open attribute where the labels are `given`; `shown` are those of the examples."""
    rng = random.Random(f"{seed}/{identity}")
    shots = rng.sample(list(examples), len(examples))
    asked = prompt_text(
        "write-values", when=kind_of(spec), name=attribute.name, means=attribute.means or attribute.name,
        where=_where(spec, given), count=LISTED + len(shots), angle=rng.choice(_ANGLES),
    )  # fmt: skip
    long = mean(len(shot) for shot in examples) if examples else 16  # characters of a name, where nothing is known
    tokens = round(LISTED * max(7, long * _TOKENS_PER_CHAR + 4))  # 4: number, mark and line end
    return list_start(asked, shots, model, identity, tokens)


def topics_request(
    spec: Spec, given: Values, examples: Sequence[str], model: str, identity: str, seed: int
) -> ChatRequest:
    """Asks what different messages are about where the labels are `given`, as the examples have them."""
    rng = random.Random(f"{seed}/{identity}")
    shots = rng.sample(list(examples), min(_TOPIC_SHOTS, len(examples)))
    asked = prompt_text(
        "write-topics", when=kind_of(spec), where=_where(spec, given), count=TOPICS, angle=rng.choice(_ANGLES),
        examples="\n".join(f"- {shot[:_TOPIC_SHOT_CHARS]}" for shot in shots), language=in_language(spec),
    )  # fmt: skip
    return list_start(asked, (), model, identity, TOPICS * 10)  # tokens: a topic is a few words


def listed_topics(answered: str) -> list[str]:
    """What an answer lists, each short and no sentence that was cut off."""
    lines = [line.rstrip(".") for line in listed_lines(answered)]
    return [line for line in lines if word_count(line) <= _TOPIC_WORDS and not re.search(r"[\[\]{}<>|`*]|:$", line)]


def _where(spec: Spec, given: Values) -> str:
    """The labels that are given, each as a sentence with its meaning."""
    stated = [(name, value, spec.attribute(name).values[value].means) for name, value in given.items() if value]
    return "".join(f" Here {name} is {value}{f' ({means})' if means else ''}." for name, value, means in stated)


def listed_values(attribute: Attribute, answered: str, examples: Sequence[str]) -> list[str]:
    """The values that an answer lists, in the manner of those of the examples, none of them an example's.

    Of numbers only numbers; what an answer shows where there is none is no value.
    """
    numbers = bool(examples) and all(map(is_number, examples))
    absent = {"null", (attribute.absent_as or "null").lower()}
    longest = max(map(word_count, examples), default=4)
    most = attribute.words_max or max(6, 2 * longest)  # longer ones are sentences in place of a value
    small = bool(examples) and all(value[:1].islower() for value in examples)
    known = {normal(value, digits_count=True) for value in examples}
    values = []
    for line in listed_lines(answered):
        value = line.strip("\"'*").strip()
        value = value.rstrip(".") if not any(one.endswith(".") for one in examples) else value
        value = value[:1].lower() + value[1:] if small and not re.match(r"I\b|[A-Z]{2}", value) else value
        odd = not value or value[-1] in ":?" or word_count(value) > most or re.search(r"[\[\]{}<>|`]", value)
        none = value.lower() in absent or (numbers and not is_number(value))
        if not odd and not none and normal(value, digits_count=True) not in known:
            values.append(value)
    return values


# Messages


def message_request(
    spec: Spec, one: Draw, shots: Sequence[Shot], model: str, temperature: float, identity: str, *,
    page: str = "write-message", more: Sequence[Shot] = (),
) -> ChatRequest:  # fmt: skip
    """Asks for the message of a draw, by its note, behind examples with theirs, as turns.

    The beginning is that of every note of the same labels and turn, so that a server reads it once; so one message a
    request costs no more than several, and a document is never cut off for the sake of another.
    """
    behind = _ordered_shots(spec, one, shots, more)
    instructions = prompt_text(page, when=kind_of(spec), language=in_language(spec), means=_meanings(spec))
    turns: list[dict[str, str]] = []
    for shot in behind:
        noted = note(spec, shot.values, shot.surfaces)
        turns += [user(noted if turns else f"{instructions}\n\n{noted}"), assistant(shot.message)]
    style = one.told.get(STYLE)
    asked = note(spec, one.values, one.surfaces[0]) + (f"\nHow: {style}" if style else "")
    extra = {"top_k": 40}  # fewer than a list's: a message has to say what was drawn
    tokens = spec.message_tokens + _TOKENS_OF_STYLE
    return ChatRequest(identity, model, [*turns, user(asked)], tokens, temperature, extra=extra)


def list_request(
    spec: Spec, profile: Values, begun: Sequence[str], count: int, style: str, model: str, temperature: float,
    identity: str, says: Sequence[str] = (),
) -> ChatRequest:  # fmt: skip
    """Asks for `count` messages of a profile, and one that may be cut off, as a list that goes on behind `begun`.

    `says`: attributes of which each message is to say something.
    """
    stated = [f"it says {spec.attribute(name).means.rstrip('. ') or name}" for name in says]
    meanings = "; ".join([*(_meaning(spec, name, value) for name, value in profile.items() if value), *stated])
    asked = prompt_text(
        "write-list", when=kind_of(spec), count=len(begun) + count + 1, language=in_language(spec),
        means=f", and in each: {meanings}" if meanings else "",
        style=f" From number {len(begun) + 1} on they are written so: {style}." if style else "",
    )  # fmt: skip
    end = f"\n{len(begun) + count + 2}."
    most = (count + 1) * (spec.message_tokens + (_TOKENS_OF_STYLE if style else 0))
    return list_start(asked, begun, model, identity, most, temperature, {**_SAMPLED, "stop": [end]})


def _meaning(spec: Spec, name: str, value: str) -> str:
    return spec.attribute(name).values[value].means.rstrip(". ") or f"{name} is {value}"


def in_language(spec: Spec) -> str:
    """In which language messages are, where that has to be said."""
    return "" if spec.language == "English" else f" in {spec.language}"


def profile_of(spec: Spec, values: Values) -> dict[str, str | None]:
    """The labels that the answer shows with their values, and what it shows and the message does not say, as None."""
    visible = [a for a in spec.attributes if a.shown and a.name in values and a.kind != "computed"]
    return {a.name: values[a.name] for a in visible if a.kind == "label" or values[a.name] is None}


def _meanings(spec: Spec) -> str:
    """What the values of the labels mean beside one another; else what is answered, which says as much."""
    labels = [label for label in spec.labels if label.shown]
    bare = any(not value.means for label in labels for value in label.values.values())
    sections = [f"What is answered to them: {spec.what.rstrip('. ')}."] if bare else []
    for label in labels:
        values = "\n".join(f"- {name}: {value.means}" for name, value in label.values.items() if value.means)
        sections += [f"What {label.name} is:\n{values}"] if values else []
    return "".join(f"\n\n{text}" for text in sections)


def _ordered_shots(spec: Spec, one: Draw, shots: Sequence[Shot], more: Sequence[Shot]) -> Sequence[Shot]:
    """As many shots as fit, all of them in turn; those of the note's profile last, for a writer follows these most.

    Where there are `more`, written and found right before, only those of the profile are shown: what was missed once is
    imitated best among its own kind.
    """
    profile = profile_of(spec, one.values)
    like = [s for s in (*shots, *more) if all(n in s.values and s.values[n] == v for n, v in profile.items())]
    shots = like if more and profile and like else shots
    turn = one.order % min(len(shots), _TURNS)
    turned = [shots[(turn * -(-len(shots) // _TURNS) + n) % len(shots)] for n in range(len(shots))]
    # the likest last: it weighs most with a small writer
    liker = sorted(turned, key=lambda shot: sum(n in shot.values and shot.values[n] == v for n, v in profile.items()))
    sizes = accumulate(len(shot.message) for shot in reversed(liker))
    fitting = sum(size <= _SHOT_CHARS for size in sizes)
    return liker[-max(1, min(fitting, _SHOTS)) :]


def distractor_request(spec: Spec, examples: Sequence[str], model: str, identity: str, seed: int) -> ChatRequest:
    """Asks for sentences of which nothing is noted."""
    rng = random.Random(f"{seed}/{identity}")
    shots = rng.sample(list(examples), len(examples))
    noted = "; ".join(f"{a.name} ({a.means})" for a in spec.attributes if a.shown)
    asked = prompt_text("write-filler", when=kind_of(spec), noted=noted)
    return list_start(asked, shots, model, identity, LISTED * 12)  # tokens of a short sentence


def note(spec: Spec, values: Mapping[str, str | None], surfaces: Mapping[str, str]) -> str:
    """What a message is to say, as a note: what stands in it letter for letter in quotes, a label with its meaning."""
    entries = []
    for path, attribute in spec.leaves(values):
        if path not in values or attribute.kind == "computed":
            continue
        value, name = values[path], re.sub(r"\[(\d+)\]", lambda match: f" {int(match[1]) + 1}", path).replace(".", " ")
        surface = f'"{surfaces[path]}"' if path in surfaces else ""
        if surface and not number_ranges(attribute):
            entries.append(f"{name}: {surface}")
        elif value is not None:
            meaning = attribute.values[value].means if value in attribute.values else ""
            details = ", ".join(filter(None, (meaning, surface)))
            entries.append(f"{name}: {value}" + (f" ({details})" if details else ""))
        elif attribute.shown:
            entries.append(f"{name}: not said")
    return "Note: " + "; ".join(entries)


def written_message(answered: str) -> str:
    """The message that a writer went on with."""
    text = storable(answered).strip()
    if len(text) > 2 and text[0] in '"“' and text[-1] in '"”':
        text = text[1:-1].strip()
    return re.sub(r"^\[[^\]]*\]\s*", "", text)


# Lists


def listed_lines(answered: str) -> list[str]:
    """The lines of a list, but for one that may be cut off."""
    lines = answered.split("\n")
    whole = lines[:-1] if len(lines) > 2 else lines
    return [text for line in whole if (text := _LIST_MARK.sub("", line).strip().strip('"').strip())]


def distinct_texts(texts: Iterable[str]) -> list[str]:
    """Texts without those that were there before, in their order."""
    unique: dict[str, str] = {}
    for text in texts:
        unique.setdefault(normal(text, digits_count=True), text)
    return list(unique.values())
