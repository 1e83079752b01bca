"""The description of a new behaviour while it is open: kept in a file, put back with its conversation, asked on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, Example, distinct, missing
from tunesmith.tools.data.proposal import Proposal
from tunesmith.tools.pipeline.behaviour_plan import Quantizing

_ECHOED_CHARACTERS = 100
"""Of a person's own words, to see that they were taken: they know the rest."""
_QUESTIONS = {
    "when": "1 of 4: When shall it apply? Say what kind of message it is for, such as: "
    "the user asks how to cook something. (A part that was said can be said anew, as when: … or what: … or never: …)",
    "what": "2 of 4: What exactly shall the answer be? Its form and length, such as: three bullet points, "
    "each one step.",
    "never": "3 of 4: What must the answer never do? “Nothing” is an answer too.",
    "examples": f"4 of 4: Now {EXAMPLES_MIN} examples, one a message, written as: MESSAGE => ANSWER (\\n stands for "
    "a new line). They say what is right, so they are yours: old messages with the answers that you would have wanted.",
}


class Interview(Frozen):
    """What a new behaviour is to be, as far as it was said."""

    goal: str
    pace: Literal["fast", "full"]
    quantize: Quantizing
    draft: DescriptionDraft = DescriptionDraft()
    base: str = ""
    """The model that the wish named; empty: the plan chooses one."""
    conversation: str = ""
    """The conversation that it belongs to; empty until the end of its first turn."""
    proposal: Proposal = Proposal()
    """The form of the answers and their parts, as a driver understood them."""
    said: tuple[str, ...] = ()
    """Texts of it that stood in the user's words when they were given."""
    driven: bool = False
    """Whether the driver describes it from the user's words; else code asks for it part by part."""
    unstated: bool = False
    """Whether examples came from a script or another agent, so that none of them is a person's case."""

    @property
    def asked(self) -> str:
        """The part that the user is asked for; one more example where its writing down was interrupted."""
        return next(iter(missing(self.draft)), "examples")

    @property
    def question(self) -> str:
        """What to ask the user now."""
        given = distinct(self.draft.examples)
        if self.asked != "examples" or not given:
            return _QUESTIONS[self.asked]
        counted = f"{min(len(given), EXAMPLES_MIN)} of {EXAMPLES_MIN} examples are here"
        return f"{counted}; the newest is read as: {echoed(given[-1])}. The next one, as MESSAGE => ANSWER?"


def echoed(example: Example) -> str:
    """An example as it was understood, in one line."""
    texts = (" ".join(text.replace("\n", "\\n").split()) for text in (example.prompt, example.answer))
    return " => ".join(f"“{text[:_ECHOED_CHARACTERS]}{'…' * (len(text) > _ECHOED_CHARACTERS)}”" for text in texts)


def _file(home: Path) -> Path:
    return home / "behaviours" / "draft.json"


def open_interview(home: Path) -> Interview | None:
    """The description that is being given, if any."""
    try:
        return Interview.model_validate_json(_file(home).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):  # none, or an earlier version's
        return None


def conversation_of(home: Path) -> str:
    """The conversation in which a description is open; empty where none is, or where its first turn never ended."""
    interview = open_interview(home)
    return interview.conversation if interview else ""


def belonging(home: Path, conversation: str) -> Interview | None:
    """The description that is open; from now on it belongs to this conversation where it belonged to none."""
    interview = open_interview(home)
    if interview is None or interview.conversation:
        return interview
    return keep(home, interview, conversation=conversation)


def put_back(home: Path, description: Mapping[str, object] | None) -> None:
    """Let what a conversation keeps be the description that is open; None for none, as for one of another version."""
    opened = open_interview(home)
    if opened is None and _file(home).exists():
        drop(home)  # nobody else keeps what cannot be read
    try:
        if (again := Interview.model_validate(description)) != opened:
            keep(home, again)
    except ValidationError:
        with contextlib.suppress(NotADirectoryError):  # a home that is none has no file
            _file(home).unlink(missing_ok=True)


def begin(home: Path, goal: str, pace: Literal["fast", "full"], quantize: Quantizing, base: str = "") -> Interview:
    """Begin to describe a new behaviour; one that was begun before is set aside."""
    if _file(home).exists():
        drop(home)
    return keep(home, Interview(goal=goal, pace=pace, quantize=quantize, base=base))


def drop(home: Path) -> Path:
    """Give the description up; what was said of it stays in a file of its own, which is returned."""
    aside = _file(home).with_name(f"dropped-{time.time_ns()}.json")
    _file(home).rename(aside)
    return aside


def keep(home: Path, interview: Interview, draft: DescriptionDraft | None = None, **changes: object) -> Interview:
    """Keep the description, with another draft or other fields of its own."""
    changed = interview.model_copy(update={**changes, **({"draft": draft} if draft else {})})
    atomic_write(_file(home), changed.model_dump_json(indent=1))
    return changed


def close(home: Path, name: str) -> None:
    """Close the description of a behaviour that is written down; `described_as` has it for who changes it."""
    with contextlib.suppress(FileNotFoundError):  # closed meanwhile by another program
        _file(home).rename(_written(home, name))


def described_as(home: Path, name: str) -> Interview | None:
    """The description that a behaviour was written down from; None where none is kept."""
    try:
        return Interview.model_validate_json(_written(home, name).read_bytes())
    except (OSError, ValidationError):
        return None


def _written(home: Path, name: str) -> Path:
    return home / "behaviours" / f"described-{name}.json"
