"""A new behaviour in its user's own words: what is missing is asked for, one question at a time, before any plan."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from tunesmith.agent.commands import render
from tunesmith.agent.commands.spec_view import spec_view
from tunesmith.agent.driver.reading import NAME_WORDS, Read, ask_of, named, read_by
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.wrong_values import sentence, sentences
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, Example, described, distinct, missing, slug
from tunesmith.tools.data.proposal import Proposal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import verified
from tunesmith.tools.evaluation.judge import judge_comes
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.behaviour_plan import Quantizing
from tunesmith.tools.pipeline.plan_file import PipelinePlan

_ARROWS = (re.compile(r"\s*(?:=>|⇒)\s*"), re.compile(r"\s*(?:->|→)\s*"))
"""The arrow that was asked for counts before those that a message may hold itself."""
_LABELLED = re.compile(
    r"(?:^|\n)\s*(?:input|user|message|question|q|prompt)\s*:\s*(.+?)\s*\n?\s*\b(?:output|"
    r"assistant|answer|a|model|reply)\s*:\s*"
    r"(.+?)(?=\n\s*(?:input|user|message|question|q|prompt)\s*:|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+(?=\S.*(?:=>|⇒|->|→))")
_ECHOED_CHARACTERS = 100
"""Of a person's own words, to see that they were taken: they know the rest."""
_PART = re.compile(r"\s*(when|what|never)\s*:\s*(\S.*)", re.IGNORECASE | re.DOTALL)
"""`when: …` says that part, whatever was asked; said again it replaces what was said."""
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
    return _keep(home, interview.model_copy(update={"conversation": conversation}))


def put_back(home: Path, description: dict[str, object] | None) -> None:
    """Let what a conversation keeps be the description that is open; None for none, as for one of another version."""
    opened = open_interview(home)
    if opened is None and _file(home).exists():
        drop(home)  # nobody else keeps what cannot be read
    try:
        if (again := Interview.model_validate(description)) != opened:
            _keep(home, again)
    except ValidationError:
        with contextlib.suppress(NotADirectoryError):  # a home that is none has no file
            _file(home).unlink(missing_ok=True)


def begin(home: Path, goal: str, pace: Literal["fast", "full"], quantize: Quantizing, base: str = "") -> Interview:
    """Begin to ask about a new behaviour; one that was begun before is set aside."""
    if _file(home).exists():
        drop(home)
    return _keep(home, Interview(goal=goal, pace=pace, quantize=quantize, base=base))


def drop(home: Path) -> Path:
    """Give the description up; what was said of it stays in a file of its own, which is returned."""
    aside = _file(home).with_name(f"dropped-{time.time_ns()}.json")
    _file(home).rename(aside)
    return aside


def keep(home: Path, interview: Interview, draft: DescriptionDraft) -> Interview:
    """Keep another draft of the description."""
    return _keep(home, interview.model_copy(update={"draft": draft}))


def add(home: Path, interview: Interview, part: str, words: str) -> Interview:
    """What was said of a part later on, kept below what was said of it before."""
    before = getattr(interview.draft, part)
    return keep(home, interview, interview.draft.model_copy(update={part: f"{before}\n{words}" if before else words}))


def names_a_part(words: str) -> bool:
    """Whether words say a part by its name, as `never: …` does."""
    return _PART.fullmatch(words) is not None


def _keep(home: Path, interview: Interview) -> Interview:
    atomic_write(_file(home), interview.model_dump_json(indent=1))
    return interview


def take(home: Path, interview: Interview, words: str) -> Interview:
    """The user's answer to what was asked, or to the part that it names, kept.

    An example whose message is there already replaces the one before. Raises BadInput for an answer that cannot be
    taken, with the question.
    """
    part = interview.asked
    if again := _PART.fullmatch(words):
        part, words = again[1].lower(), again[2]
    try:
        value = examples_of(words) if part == "examples" else words
        value = distinct((*interview.draft.examples, *value)) if isinstance(value, tuple) else value
        draft = DescriptionDraft.model_validate({**interview.draft.model_dump(), part: value})
    except ValidationError as error:
        raise BadInput(f"{sentence(error.errors()[0], DescriptionDraft)}. {interview.question}") from None
    return keep(home, interview, draft)


def examples_of(words: str) -> tuple[Example, ...]:
    """The examples that are written in some words, one a line or as `input: … output: …`. Raises BadInput for none."""
    if pairs := [(one.strip(), two.strip()) for one, two in _LABELLED.findall(words)]:
        return tuple(Example(prompt=prompt, answer=answer.replace("\\n", "\n")) for prompt, answer in pairs)
    parted = [_parted(line) for line in words.splitlines() if line.strip()]
    if not parted or any(len(pair) != 2 for pair in parted):
        lacking = next((pair[0] for pair in parted if len(pair) != 2), words)
        raise BadInput(
            f"“{lacking.strip()[:60]}” has no arrow in it: {EXAMPLES_MIN} examples are needed, each written as "
            "MESSAGE => ANSWER, for instance: How do I boil an egg? => - Boil it. Only you can say what is "
            "right; “drop it” gives the behaviour up."
        )
    return tuple(Example(prompt=prompt, answer=answer.replace("\\n", "\n")) for prompt, answer in parted)


def _parted(line: str) -> list[str]:
    line = _BULLET.sub("", line)
    arrow = next((arrow for arrow in _ARROWS if arrow.search(line)), _ARROWS[0])
    return arrow.split(line, maxsplit=1)


def plan_of(deps: TurnDeps, interview: Interview) -> tuple[PipelinePlan, str]:
    """Write the behaviour's folder; the plan, and words about both.

    Raises BadInput where nothing about the answers can be checked; the description is then asked on from `what`.
    """
    goal = interview.goal if 0 < len(interview.goal.split()) <= NAME_WORDS else ""
    name = interview.draft.name or (slug(goal) if goal else None)
    description = described(interview.draft.model_copy(update={"name": name}))
    home = deps.store.home
    judged = judge_comes(home)
    read = _read(deps, Spec.model_validate(description.model_dump()), name=interview.draft.name or "")
    try:
        folder = write_behaviour(read.spec, home / "behaviours", judged=judged)
    except BadInput as error:
        again = interview.draft.model_copy(update={"what": ""})
        saved = _keep(home, interview.model_copy(update={"draft": again}))
        raise BadInput(f"{error}. {saved.question}") from None
    behaviour = read.spec
    deps.show(spec_view(behaviour, frozenset({"when", "what", "never"}), read.left_out))
    deps.show(render.plain(f"{behaviour.name} is in {folder}; change any field of behaviour.yaml there"))
    blind = f"{len(behaviour.blind)} of your examples are blind test cases now. " if behaviour.blind else ""
    _file(home).unlink(missing_ok=True)
    words = (
        f"The behaviour {behaviour.name} is written down; a rule that asks too much can be removed from its "
        f"behaviour.yaml and its test cases. {blind}The plan is on your screen. Start it, or change something?"
    )
    plan = plan_here(deps.ws, folder, interview.pace, model=interview.base, judged=judged, quantize=interview.quantize)
    return plan, words


def _read(deps: TurnDeps, spec: Spec, *, name: str) -> Read:
    """The spec as the driver reads its words, which gives it a `name` where the user gave none; without a driver only
    what its examples show, which is said."""
    try:
        if deps.endpoint is None:
            raise BadInput("no model is here")
        endpoint = deps.endpoint()
        deps.show(render.plain(f"{endpoint.model} reads your words"))
        spec = spec if name else named(spec, ask_of(endpoint), endpoint.model)
        return read_by(deps.ws, endpoint, spec, Proposal())
    except (BadInput, StepFailed) as error:  # then code has to do
        return Read(
            verified(spec).spec, "", (f"nobody has read your words ({error}): code took what the examples show",)
        )


def described_before(home: Path, words: str) -> Path | None:
    """The folder of a behaviour that was described earlier and that `words` name."""
    folders = [path.parent for path in sorted((home / "behaviours").glob("*/behaviour.yaml"))]
    named = [f for f in folders if re.search(rf"(?<![\w-]){re.escape(f.name)}(?![\w-])", words, re.IGNORECASE)]
    return max(named, key=lambda folder: len(folder.name), default=None)  # the longest: one name may begin another


_HEAD = """\
# The new behaviour, in your words. Save and close to keep it; an empty part is asked for again.
# Each example is a message and the answer to it; a text of several lines stands behind a |.
"""


def as_text(interview: Interview) -> str:
    """The draft as YAML."""
    draft = interview.draft
    texts = {"when": draft.when, "what": draft.what, "never": draft.never}
    examples = [{"message": one.prompt, "answer": one.answer} for one in draft.examples]
    # 10,000: no sentence is folded, where a person edits
    return _HEAD + yaml.safe_dump({**texts, "examples": examples}, allow_unicode=True, sort_keys=False, width=10_000)


def edited_draft(text: str, home: Path, interview: Interview) -> Interview:
    """The draft as it was edited, kept. Raises BadInput where the text is no draft; the one before stays."""
    try:
        # Every value stays the text that was typed: to the other loaders `yes` is True, `no` nothing, and 1.50 1.5.
        fields = yaml.load(text, Loader=yaml.BaseLoader) or {}
        examples = [
            Example(prompt=str(one["message"]), answer=str(one["answer"])) for one in fields.pop("examples", None) or ()
        ]
        texts = {name: str(value) for name, value in fields.items()}
        draft = DescriptionDraft.model_validate({**texts, "examples": examples})
    # a person's edit may break it in any way
    except (yaml.YAMLError, ValidationError, KeyError, TypeError, AttributeError) as error:
        message = sentences(error, DescriptionDraft) if isinstance(error, ValidationError) else str(error)
        why = " ".join(message.split())[:160]  # a parser quotes the whole line
        raise BadInput(
            f"the edited draft cannot be read ({why}); it stays as it was. Say “edit” to try again"
        ) from None
    return keep(home, interview, draft)


def in_editor(text: str, program: str) -> str:
    """The text as the user leaves it in an editor, which has the terminal meanwhile. Raises BadInput."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        file = Path(folder) / "behaviour.yaml"
        file.write_text(text)
        try:
            ended = subprocess.run([*shlex.split(program), os.fspath(file)], check=False, cwd=folder)
        except OSError as error:
            raise BadInput(f"the editor {program!r} cannot be run ({error.strerror}); set $EDITOR") from None
        if ended.returncode:
            raise BadInput(f"the editor {program!r} ended with {ended.returncode}; the draft stays as it was")
        return file.read_text()
