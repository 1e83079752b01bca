"""The text of a row: asked of a served model for drawn attributes, put together, and held to what was drawn.

The writer goes on after a beginning and is never asked for digits: a model of 135M parameters, asked in a chat to
write from notes, said what was asked in 39 of 100 texts and garbled every second number. What it writes is taken
sentence by sentence; the sentences that would contradict the label are left out.
"""

from __future__ import annotations

import random
import re

from tunesmith.memory.records import Verdict
from tunesmith.tools.data.attributes import GO_ON, RETELL, Attributes, capital, scenario_of
from tunesmith.tools.data.behaviour import Behaviour, mentions
from tunesmith.tools.data.similarity import loops

_LONG_NUMBER = re.compile(r"\d{4,}")
_SENTENCE_END = re.compile(r"(?<=[.!?]) +")
_WORDS_MIN, _WORDS_MAX = 3, 110


def writer_messages(behaviour: Behaviour, attributes: Attributes) -> list[dict[str, str]]:
    """The chat whose last message the writer is to go on with (`continue_final_message`), up to the end of the line."""
    asked = behaviour.writer.retell if attributes.way == RETELL else behaviour.writer.go_on
    beginning = attributes.beginning if attributes.way == RETELL else capital(attributes.beginning)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": beginning}]


def stop_at(attributes: Attributes) -> list[str]:
    """Where the writer is stopped: at the end of the line; where it retells, after one more, for the better of two."""
    if attributes.way == GO_ON:
        return ["\n"]
    return [f"\n{attributes.beginning.count(chr(10)) + 3}."]


def taken(behaviour: Behaviour, attributes: Attributes, answered: str) -> list[str]:
    """The sentences of an answer that may stand in the text; of two retellings those of the one that says more."""
    lines = [re.sub(r"^\s*\d+\.", "", line) for line in answered.splitlines() if line.strip()] or [""]
    usable = [_usable(behaviour, attributes, line) for line in lines]
    return next((sentences for sentences in usable if says_it(behaviour, attributes, sentences)), usable[0])


def _usable(behaviour: Behaviour, attributes: Attributes, line: str) -> list[str]:
    """Whole sentences that hold no number of their own, no other cue, and no word of somebody who answers.

    Where the writer goes on after a fact its first sentence is the rest of the fact's: without it the next do not fit.
    """
    text = " ".join(line.strip().strip('"').split())
    sentences = _SENTENCE_END.split(text)
    if len(sentences) > 1 and sentences[-1][-1:] not in ".!?":
        sentences.pop()
    others = [word for name, cue in behaviour.cues.items() if name != attributes.cue for word in cue.words]
    kept = []
    for sentence in filter(None, sentences):
        if not (_LONG_NUMBER.search(sentence) or mentions(sentence, tuple(others)) or never_word(behaviour, sentence)):
            kept.append(sentence)
        elif attributes.way == GO_ON and not kept:
            return []
    return kept


def says_it(behaviour: Behaviour, attributes: Attributes, sentences: list[str]) -> bool:
    """Whether the writer's own sentences carry the scenario; where it goes on after the fact, whether it did."""
    if attributes.way == GO_ON:
        return bool(sentences)
    text = " ".join(sentences).lower()
    names_product = attributes.product.lower() in text or attributes.product.lower() not in attributes.summary.lower()
    return names_product and mentions(text, scenario_of(behaviour, attributes).mentions)


def compose(behaviour: Behaviour, attributes: Attributes, sentences: list[str]) -> str:
    """The text of a row from the writer's sentences, with the drawn ones among them, typed as drawn."""
    said = says_it(behaviour, attributes, sentences)
    if attributes.way == RETELL:
        body = sentences if said else [attributes.fact, *sentences]
    elif said:
        glue = "" if sentences[0][:1] in ("'", ",", ".") else " "
        body = [attributes.beginning + glue + sentences[0], *sentences[1:]]
    else:
        body = [attributes.fact]
    first, *rest = [text if text[-1:] in (".", "!", "?") else text + "." for text in body]
    lines = [_opened(attributes.opener, first), *map(capital, rest)]
    drawn = [attributes.distractor, attributes.cue_phrase and attributes.cue_phrase.rstrip("!.") + "."]
    named = next((place for place, line in enumerate(lines) if attributes.product in line), None)
    if attributes.reference_inline and named is not None:
        inline = attributes.product + attributes.reference_inline
        lines[named] = lines[named].replace(attributes.product, inline, 1)
    else:
        drawn.append(attributes.reference_sentence)
    rng = random.Random(f"{attributes.row_id}/{attributes.fact}/{attributes.distractor}")
    for sentence in filter(None, drawn):
        lines.insert(rng.randint(1 if attributes.opener else 0, len(lines)), sentence)
    return attributes.before + _typed(" ".join(lines), attributes.typing) + attributes.after


def _opened(opener: str, sentence: str) -> str:
    """`sentence` behind `opener`; it stays capital only where the opener ends a sentence, or for "I"."""
    if not opener or opener.rstrip()[-1] in ".!?":
        return opener + capital(sentence)
    keeps = re.match(r"I\b|[A-Z]{2}", sentence)
    return opener + (sentence if keeps else sentence[:1].lower() + sentence[1:])


def _typed(text: str, typing: str) -> str:
    if typing == "lower":
        return text.lower()
    if typing == "caps":
        return text.upper()
    return text.rstrip(".") if typing == "no-end" else text


def problems(behaviour: Behaviour, attributes: Attributes, text: str) -> list[Verdict]:
    """Why `text` does not carry the label that was drawn for it; empty: it does."""
    found = []
    words = len(text.split())
    if not _WORDS_MIN <= words <= _WORDS_MAX:
        found.append(Verdict("length", f"{words} words"))
    if not mentions(text, scenario_of(behaviour, attributes).mentions):
        found.append(Verdict("off-topic", "nothing of its scenario"))
    if attributes.reference and attributes.reference not in _LONG_NUMBER.findall(text):
        found.append(Verdict("reference", f"{attributes.reference} is not in the text"))
    drawn = attributes.distractor + (attributes.reference or "")
    if stray := [n for n in _LONG_NUMBER.findall(text) if n not in drawn]:
        found.append(Verdict("number", f"{stray[0]} was not drawn"))
    for name, cue in behaviour.cues.items():
        said = text.lower().replace(attributes.cue_phrase.lower().rstrip("!."), "") if attributes.cue_phrase else text
        if name != attributes.cue and mentions(said, cue.words):
            found.append(Verdict("cue", f"reads as {name}, drawn was {attributes.cue}"))
    if odd := never_word(behaviour, _written_part(attributes, text)):
        found.append(Verdict("role", f"holds {odd!r}"))
    if sum(c.isascii() for c in text) < 0.97 * len(text):
        found.append(Verdict("language", "many characters beyond ASCII"))
    if loops(text):
        found.append(Verdict("loop", "repeats itself"))
    return found


def never_word(behaviour: Behaviour, text: str) -> str | None:
    """The first of the writer's forbidden words in `text`; letters count from the start of a word only."""
    words = (word for word in behaviour.writer.never if word in text.lower())
    return next((word for word in words if not word[0].isalnum() or mentions(text, (word,))), None)


def _written_part(attributes: Attributes, text: str) -> str:
    """`text` in lower case without what was drawn, so that a drawn greeting is not held against the writer."""
    text = text.removeprefix(attributes.before).removesuffix(attributes.after).lower()
    for said in (
        attributes.opener,
        attributes.reference_inline,
        attributes.reference_sentence,
        attributes.fact,
        attributes.distractor.rstrip("."),
    ):
        text = text.replace(said.lower(), "", 1)
    return text
