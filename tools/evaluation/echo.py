"""The echo: what an arm could answer by giving the message's own words back in the form of its answers.

A suite that asks for a word of the message passes such an answer, whatever it says. No language is read here: the form
is what the arm's own answers have in common (how they begin and end, how their lines begin, the fields of their JSON),
and between stand words of the message as they come.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, takewhile

from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response

_SHARED = 0.8
"""Share of the answers that begin, or end, alike where that is their form."""
_ALIKE = 0.9
"""Share of an answer's words that are the message's, and of the message's words that it gives back, in an echo: a word
more, or a slip put right, makes it no answer."""
_WORDS = 3
"""Text of fewer words than this is compared and cut by its characters: not every script puts spaces."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How the answers of an arm begin and end."""

    before: str
    after: str

    @classmethod
    def whole(cls, answers: Sequence[str]) -> Frame:
        """All that most of these answers share."""
        before = _shared_start(answers)
        rest = [text.removeprefix(before) for text in answers]
        return cls(before, _shared_start([text[::-1] for text in rest])[::-1])

    @classmethod
    def edges(cls, answers: Sequence[str]) -> Frame:
        """The first word that most share, and the marks that most end on."""
        start, end = _shared_start(answers), _shared_start([text[::-1] for text in answers])
        word = re.match(r"\s*\S+\s*", start)
        marks = [*takewhile(lambda letter: not letter.isalnum(), end)]
        return cls(word[0] if word else "", "".join(reversed(marks)).strip())

    def inside(self, answer: str) -> str:
        """What an answer says between."""
        return answer.removeprefix(self.before).removesuffix(self.after)

    def around(self, text: str) -> str:
        """A text in the form."""
        return f"{self.before}{text}{self.after}"


def _frames(answers: Sequence[str]) -> list[Frame]:
    """The forms to put a message into; all that is shared is none where that is the answer itself, always the same."""
    whole = Frame.whole(answers)
    constant = sum(not whole.inside(answer) for answer in answers) > len(answers) / 2
    return [Frame.edges(answers), *([] if constant else [whole])]


def echoes(cases: Sequence[Case], answers: Sequence[Response]) -> dict[str, list[Response]]:
    """Every way to echo, each with its answer to every case."""
    ways: dict[str, Callable[[str, Response], Response]] = {
        "the message": lambda message, own: Response(message),
        "its words line by line": lambda message, own: Response(_line_by_line(message, own.text)),
        "the message in every field": _in_every_field,
    }
    for number, frame in enumerate(_frames([answer.text for answer in answers]), 1):
        ways[f"the message in form {number}"] = partial(_in_form, frame)
        ways[f"its first words in form {number}"] = partial(_cut_to_form, frame)
    return {
        name: [say(message_of(case), own) for case, own in zip(cases, answers, strict=True)]
        for name, say in ways.items()
    }


def _in_form(frame: Frame, message: str, own: Response) -> Response:
    return Response(frame.around(message))


def _cut_to_form(frame: Frame, message: str, own: Response) -> Response:
    return Response(frame.around(_first(message, frame.inside(own.text))))


def echoed(cases: Sequence[Case], answers: Sequence[Response]) -> int:
    """How many of an arm's answers give the whole message back and next to nothing else."""
    frames = _frames([answer.text for answer in answers])
    return sum(
        any(_is_echo(frame.inside(own.text), message_of(case)) for frame in frames)
        for case, own in zip(cases, answers, strict=True)
    )


def message_of(case: Case) -> str:
    """The user's own words: the variable that the prompt is made around, or the last message as it is."""
    contents = [message.get("content") for message in case.messages if message.get("role") == "user"]
    text = contents[-1] if contents and isinstance(contents[-1], str) else ""
    given = [value for value in case.vars.values() if isinstance(value, str) and value and value in text]
    return max(given, key=len, default=text)


def _shared_start(texts: Sequence[str]) -> str:
    """The longest beginning of most texts."""
    most, alike, length = "", [text for text in texts if text], 0
    while alike:
        length += 1
        [(start, count)] = Counter(text[:length] for text in alike if len(text) >= length).most_common(1) or [("", 0)]
        if count < 2 or count < _SHARED * len(texts):
            break
        most, alike = start, [text for text in alike if text.startswith(start)]
    return most


def _units(text: str) -> tuple[list[str], str]:
    words = text.split()
    return (words, " ") if len(words) >= _WORDS else (list(text.strip()), "")


def _first(message: str, own: str) -> str:
    units, joint = _units(message)
    return joint.join(units[: max(1, len(own.split()) if joint else len(own))])


def _line_by_line(message: str, own: str) -> str:
    lines = own.split("\n")
    written = sum(any(map(str.isalpha, line)) for line in lines)
    if not written:
        return message
    units, joint = _units(message)
    units = units or [message]
    size = max(1, len(units) // written)
    echo_lines = []
    for number, line in zip(accumulate(any(map(str.isalpha, line)) for line in lines), lines, strict=True):
        letters = [place for place, letter in enumerate(line) if letter.isalpha()]
        if not letters:
            echo_lines.append(line)
            continue
        first = (number - 1) * size % len(units)
        words = units[first:] if number == written else units[first : first + size]
        echo_lines.append(line[: letters[0]] + joint.join(words) + line[letters[-1] + 1 :])
    return "\n".join(echo_lines)


def _in_every_field(message: str, own: Response) -> Response:
    """The arm's own JSON, or the arguments of its tool calls, with nothing but the message in it."""
    if own.tool_calls:
        return replace(own, tool_calls=[_called_with(message, call) for call in own.tool_calls])
    try:
        return Response(json.dumps(_filled(message, json.loads(own.text)), ensure_ascii=False))
    except (ValueError, RecursionError):  # no JSON, or nested without end: an answer may be anything
        return Response(message)


def _called_with(message: str, call: object) -> dict[str, object]:
    whole = dict(call) if isinstance(call, dict) else {}
    function = dict(whole["function"]) if isinstance(whole.get("function"), dict) else {}
    try:
        filled = _filled(message, json.loads(str(function.get("arguments"))))
    except (ValueError, RecursionError):  # an answer's own text: no JSON, or nested without end
        filled = message
    return {**whole, "function": {**function, "arguments": json.dumps(filled, ensure_ascii=False)}}


def _filled(message: str, value: object) -> object:
    if isinstance(value, dict):
        return {name: _filled(message, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(message, inner) for inner in value]
    if isinstance(value, str):
        return message
    if isinstance(value, int | float) and not isinstance(value, bool):
        digits = re.search(r"\d+", message)
        # As many digits as 64 bits hold; from 4,300 on Python refuses to read a number.
        return int(digits[0][:18]) if digits else 0
    return value


def _is_echo(inside: str, message: str) -> bool:
    cut = str.split if len(message.split()) >= _WORDS else list  # not every script puts spaces
    answer_words, words = (Counter(cut(text.casefold().strip(" \n.!?"))) for text in (inside, message))
    common = (answer_words & words).total()
    return bool(common) and common >= _ALIKE * answer_words.total() and common >= _ALIKE * words.total()
