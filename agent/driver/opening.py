"""The first words about a new behaviour: whether they describe one, and what of it they say already.

A trained layer says what each sentence tells (agent/words/openings.py). What it took is shown, sentence for sentence,
and so is what it did not take; what was not said is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from tunesmith.agent.driver import describing
from tunesmith.agent.driver.describing import Interview
from tunesmith.agent.driver.turn_deps import NOT_THE_USER
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.openings import SENTENCES_MOST, Statement, clauses, clauses_in, sentences_of, statements
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import clip
from tunesmith.tools.data.description import DescriptionDraft, Example

LONGEST = 4_000
"""Characters: what one part of a description may hold."""
_SURE, _LONG = 0.75, 15
"""From which probability a sentence counts as one that describes: one of two and a third of all, or one of so many
words. Of 45 descriptions of other writers all are known, without any mark in them 44, and none of 142 messages as long
that ask for something else."""
_ANSWER = 0.5
"""From which probability one of the two has to tell what the answer is."""
_TOO = 0.3
"""From which probability one about the answer tells the messages too, where no other sentence does: 5 of 5 did."""
_PARTS = {"when": ("when",), "what": ("what",), "both": ("when", "what"), "never": ("never",)}
"""What a sentence tells → the parts that it is kept under."""
_CLAUSE = (12, 20)
"""The words of a clause that does not tell both the messages and the answer, in the mean and at most: with more, marks
are likely to be missing where its sentences end. Of 45 descriptions without any full stop 19 are sorted all the same,
of those joined by commas 39, and of 24 that people typed in one breath 21."""
_PAUSES = " ,;–—"
"""What a clause that was taken out of its sentence ends with."""
_SHOWN = 70
"""Characters of a sentence that was not taken: its user knows the rest."""


def describes(words: str) -> bool:
    """Whether words of several sentences describe a behaviour, and ask for nothing else."""
    return len(said := _statements(words)) > 1 and _describes(said)


def may_describe(words: str) -> bool:
    """Whether words without a mark between them, too many for an order, describe one."""
    return len(said := _statements(words)) == 1 and _describes(said)


def beside(words: str) -> str:
    """What words say beside the behaviour that they describe, such as the base that they want; all of them where they
    describe none, or are one sentence."""
    return " ".join(one.text for one in _statements(words) if one.role not in _PARTS) if describes(words) else words


def questions_beside(words: str) -> list[str]:
    """What is asked beside a described behaviour, `can this machine do it?`."""
    said = _statements(words) if describes(words) else []
    return [one.text for one in said if one.role == "else" and one.text.endswith("?")]


def tells_several_parts(words: str) -> bool:
    """Whether words describe more than one part of a behaviour, each in sentences of its own."""
    parts = {part for one in _statements(words) for part in _PARTS.get(one.role, ())}
    return describes(words) and "when" in parts and len(parts) > 1


def filled_in(home: Path, interview: Interview, words: str) -> tuple[Interview, str]:
    """The description with what its first words say, kept letter for letter, and what is said of that; as it was where
    they describe nothing."""
    said = _statements(words) if describes(words) else _clauses(words)
    if not said:
        return interview, ""
    parts = {
        part: " ".join(one.text for one in said if part in _PARTS.get(one.role, ())).rstrip(_PAUSES)
        for part in ("when", "what", "never")
    }
    too = max((one for one in said if one.role == "what"), key=lambda one: one.messages, default=None)
    if not parts["when"] and too and too.messages >= _TOO:
        parts["when"] = too.text.rstrip(_PAUSES)
    examples = {one.text: _example(one) for one in said if one.role == "example"}
    written = tuple(example for example in examples.values() if example)
    try:
        draft = DescriptionDraft.model_validate({**interview.draft.model_dump(), **parts, "examples": written})
    except ValidationError:  # it is asked for part by part
        return interview, ""
    lines = [f"{part}: {' '.join(text.split())} ✓" for part, text in parts.items() if text]
    lines += [f"example: {describing.echoed(example)} ✓" for example in written]
    not_taken = (one for one in said if one.role == "else" or (one.role == "example" and not examples[one.text]))
    left = [one.text.rstrip(_PAUSES) for one in not_taken]
    lines += [f"Not part of it: {'; '.join(f'“{clip(one, _SHOWN)}”' for one in left)}."] * bool(left)
    told_of_it = "\n".join(("Of your words I take, letter for letter:", *lines))
    return describing.keep(home, interview, draft), f"{told_of_it}\n"


@lru_cache(4)
def _statements(words: str) -> Sequence[Statement]:
    """What the sentences of a message tell; nothing of a short one, which is read as a whole, nor of a paste."""
    if words.startswith(NOT_THE_USER) or len(words) > LONGEST:
        return []
    said = sentences_of(words)
    if len(said) > SENTENCES_MOST or (len(said) == 1 and not _is_long(said[0])):
        return []
    try:
        return statements(words)
    except NoEncoder:
        return []


def _clauses(words: str) -> Sequence[Statement]:
    """What the clauses of one long sentence that describes tell, where they tell several parts; else nothing."""
    if not may_describe(words):
        return []
    [whole] = _statements(words)
    said = clauses(whole.text)
    lengths = [len(words.split()) for one in said if one.role != "both" for words in clauses_in(one.text)]
    unmarked = sum(lengths) > _CLAUSE[0] * len(lengths) or max(lengths, default=0) > _CLAUSE[1]
    several = len({one.role for one in said if one.role in _PARTS}) > 1
    return said if several and not unmarked else []


def _describes(said: Sequence[Statement]) -> bool:
    sure = [one for one in said if one.describes >= _SURE]
    several = len(sure) > 1 and any(one.answer >= _ANSWER for one in sure)
    alone = any(one.role != "never" and _is_long(one.text) for one in sure)
    return (several or alone) and 3 * len(sure) >= len(said)


def _is_long(text: str) -> bool:
    return len(text.split()) >= _LONG


def _example(one: Statement) -> Example | None:
    """The example that a sentence is, where it is nothing else: in prose nobody but its user knows where it ends."""
    try:
        [example] = describing.examples_of(one.text)
    except (BadInput, ValueError):
        return None
    return None if ": " in example.prompt or example.answer.endswith(".") else example
