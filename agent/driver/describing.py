"""A new behaviour in its user's own words: what is missing is asked for, one question at a time, before any plan."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import yaml
from pydantic import ValidationError

from tunesmith.agent.driver.describe import Interview as Interview
from tunesmith.agent.driver.describe import begin as begin
from tunesmith.agent.driver.describe import belonging as belonging
from tunesmith.agent.driver.describe import conversation_of as conversation_of
from tunesmith.agent.driver.describe import drop as drop
from tunesmith.agent.driver.describe import echoed as echoed
from tunesmith.agent.driver.describe import keep, read_words, write_down
from tunesmith.agent.driver.describe import open_interview as open_interview
from tunesmith.agent.driver.describe import put_back as put_back
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.wrong_values import sentence, sentences
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.description import EXAMPLES_MIN, OWN_BLIND, DescriptionDraft, Example, distinct
from tunesmith.tools.evaluation.judge import judge_comes
from tunesmith.tools.pipeline.base_choice import plan_here
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
_PART = re.compile(r"\s*(when|what|never)\s*:\s*(\S.*)", re.IGNORECASE | re.DOTALL)
"""`when: …` says that part, whatever was asked; said again it replaces what was said."""


def add(home: Path, interview: Interview, part: str, words: str) -> Interview:
    """What was said of a part later on, kept below what was said of it before."""
    before = getattr(interview.draft, part)
    return keep(home, interview, interview.draft.model_copy(update={part: f"{before}\n{words}" if before else words}))


def names_a_part(words: str) -> bool:
    """Whether words say a part by its name, as `never: …` does."""
    return _PART.fullmatch(words) is not None


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
    home = deps.store.home
    try:
        folder = write_down(deps, interview, read_words(deps, interview))
    except BadInput as error:
        saved = keep(home, interview, interview.draft.model_copy(update={"what": ""}))
        raise BadInput(f"{error}. {saved.question}") from None
    behaviour = load_behaviour(str(folder))
    blind = f"{OWN_BLIND} of your examples are blind test cases now. " if behaviour.blind_sha256 else ""
    words = (
        f"The behaviour {behaviour.name} is written down; a rule that asks too much can be removed from its "
        f"behaviour.yaml and its test cases. {blind}The plan is on your screen. Start it, or change something?"
    )
    plan = plan_here(
        deps.ws, folder, interview.pace, model=interview.base, judged=judge_comes(home), quantize=interview.quantize
    )
    return plan, words


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
