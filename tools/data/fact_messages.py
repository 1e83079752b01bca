"""Messages that begin with a fact of the spec: the writer goes on after it, and code puts the drawn parts around that.

The writer is never asked for digits or labels: a model of 135M parameters, asked in a chat to write from notes, said
what was asked in 39 of 100 texts and garbled every second number. What it writes is taken sentence by sentence; the
sentences that would contradict the answer are left out.
"""

from __future__ import annotations

import random
import re

from tunesmith.tools.data.draw import Draw, capital, situation_of
from tunesmith.tools.data.similarity import loops
from tunesmith.tools.data.situations import mentions
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.typed_values import conflict, found

_SENTENCE_END = re.compile(r"(?<=[.!?]) +")
_WORDS_MIN, _WORDS_MAX = 3, 110


def go_on_messages(spec: Spec, drawn: Draw) -> list[dict[str, str]]:
    """The chat whose last message the writer is to go on with (`continue_final_message`), up to the end of the line."""
    assert spec.writing is not None
    return [{"role": "user", "content": spec.writing.go_on}, {"role": "assistant", "content": _beginning(drawn)}]


def _beginning(drawn: Draw) -> str:
    return capital(drawn.told["fact"]) + drawn.told["joiner"]


def taken(spec: Spec, drawn: Draw, answered: str) -> list[str]:
    """Whole sentences that hold no typed value, no sign of another label, and no word of somebody who answers.

    The first sentence is the rest of the fact's: without it the next do not fit.
    """
    line = next((line for line in answered.splitlines() if line.strip()), "")
    sentences = _SENTENCE_END.split(" ".join(line.strip().strip('"').split()))
    if len(sentences) > 1 and sentences[-1][-1:] not in ".!?":
        sentences.pop()
    phrases: list[str] = []
    for sentence in filter(None, sentences):
        if not (_typed_in(spec, sentence) or mentions(sentence, _others(spec, drawn)) or never_word(spec, sentence)):
            phrases.append(sentence)
        elif not phrases:
            return []
    return phrases


def _typed_in(spec: Spec, text: str) -> bool:
    return any(
        found(a, text) or (a.kind == "digits" and re.search(r"\d{4,}", text)) for a in spec.attributes if a.typed
    )


def _others(spec: Spec, drawn: Draw) -> tuple[str, ...]:
    """What gives away a value of a label that was not drawn."""
    return tuple(
        word
        for label in spec.labels
        for name, value in label.values.items()
        if name != drawn.values.get(label.name)
        for word in value.words
    )


def compose(spec: Spec, drawn: Draw, sentences: list[str]) -> str:
    """The message from the writer's sentences, with the drawn ones among them, typed as drawn."""
    parts = drawn.told
    body = [parts["fact"]]
    if sentences:
        glue = "" if sentences[0][:1] in ("'", ",", ".") else " "
        body = [_beginning(drawn) + glue + sentences[0], *sentences[1:]]
    first, *rest = [text if text[-1:] in (".", "!", "?") else text + "." for text in body]
    lines = [_opened(parts["opener"], first), *map(capital, rest)]
    extra = [parts["distractor"]]
    for attribute in spec.attributes:
        if attribute.kind == "label" and (phrase := drawn.surfaces[0].get(attribute.name)):
            extra.append(phrase.rstrip("!.") + ".")
        elif attribute.typed and drawn.values.get(attribute.name) is not None:
            inline = parts.get(f"inline {attribute.name}", "")
            place = next((n for n, line in enumerate(lines) if parts["thing"] and parts["thing"] in line), None)
            if inline and place is not None:
                lines[place] = lines[place].replace(parts["thing"], parts["thing"] + inline, 1)
            else:
                extra.append(parts[f"sentence {attribute.name}"])
    rng = random.Random(f"{drawn.row_id}/{parts['fact']}/{parts['distractor']}")
    for sentence in filter(None, extra):
        lines.insert(rng.randint(1 if parts["opener"] else 0, len(lines)), sentence)
    return parts["before"] + typed(" ".join(lines), parts["typing"]) + parts["after"]


def _opened(opener: str, sentence: str) -> str:
    """`sentence` behind `opener`; it stays capital only where the opener ends a sentence, or for "I"."""
    if not opener or opener.rstrip()[-1] in ".!?":
        return opener + capital(sentence)
    keeps = re.match(r"I\b|[A-Z]{2}", sentence)
    return opener + (sentence if keeps else sentence[:1].lower() + sentence[1:])


def typed(text: str, typing: str) -> str:
    """The text as somebody types it: as-is, lower, caps, or no-end."""
    if typing == "lower":
        return text.lower()
    if typing == "caps":
        return text.upper()
    return text.rstrip(".") if typing == "no-end" else text


def problems(spec: Spec, drawn: Draw, text: str) -> list[str]:
    """Why `text` does not carry what was drawn for it; empty: it does. The first word is the kind."""
    reasons = []
    words = len(text.split())
    if not _WORDS_MIN <= words <= _WORDS_MAX:
        reasons.append(f"length: {words} words")
    wanted = situation_of(spec, drawn).mentions
    if wanted and not mentions(text, wanted):
        reasons.append("off-topic: nothing of its situation")
    for attribute in spec.attributes:
        if attribute.typed:
            without = text.replace(drawn.told["distractor"], "") if drawn.told["distractor"] else text
            without = re.sub(re.escape(drawn.told["distractor"].rstrip(".")), "", without, flags=re.IGNORECASE)
            if clash := conflict(attribute, drawn.surfaces[0].get(attribute.name, ""), without):
                reasons.append(f"value: {clash}")
    lowered = text.lower()
    for phrase in drawn.surfaces[0].values():
        lowered = lowered.replace(phrase.lower().rstrip("!."), "")
    for label in spec.labels:
        for name, value in label.values.items():
            if name != drawn.values[label.name] and mentions(lowered, value.words):
                reasons.append(f"label: reads as {label.name} {name}, drawn was {drawn.values[label.name]}")
    if odd := never_word(spec, _written_part(drawn, text)):
        reasons.append(f"role: holds {odd!r}")
    if sum(c.isascii() for c in text) < 0.97 * len(text):
        reasons.append("language: many characters beyond ASCII")
    if loops(text):
        reasons.append("loop: repeats itself")
    return reasons


def never_word(spec: Spec, text: str) -> str | None:
    """The first of the writer's forbidden words in `text`; letters count from the start of a word only."""
    words = (word for word in (spec.writing.never if spec.writing else ()) if word in text.lower())
    return next((word for word in words if not word[0].isalnum() or mentions(text, (word,))), None)


def _written_part(drawn: Draw, text: str) -> str:
    """`text` in lower case without what was drawn, so that a drawn greeting is not held against the writer."""
    parts = drawn.told
    text = text.removeprefix(parts["before"]).removesuffix(parts["after"]).lower()
    inserted = [part for name, part in parts.items() if name.startswith(("inline ", "sentence "))]
    for phrase in (parts["opener"], *inserted, parts["fact"], parts["distractor"].rstrip(".")):
        text = text.replace(phrase.lower(), "", 1)
    return text
