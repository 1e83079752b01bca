"""A new behaviour in its user's own words: what is missing is asked for, one question at a time, before any plan."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from tunesmith.agent.driver.drafts import Interview, keep
from tunesmith.agent.driver.plan import PlanFineTune, of_behaviour
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.wrong_values import sentence, sentences
from tunesmith.tools.data.behaviour import described_in
from tunesmith.tools.data.description import EXAMPLES_MIN, OWN_BLIND, DescriptionDraft, Example, distinct
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
    args = PlanFineTune(base=interview.base, pace=interview.pace, quantize=interview.quantize)
    try:
        edited = of_behaviour(deps, args, interview)
    except BadInput as error:
        saved = keep(deps.store.home, interview, interview.draft.model_copy(update={"what": ""}))
        raise BadInput(f"{error}. {saved.question}") from None
    name = edited.plan.name
    blind = len(interview.draft.examples) >= EXAMPLES_MIN + OWN_BLIND
    words = (
        f"The behaviour {name} is written down; a rule that asks too much can be removed from its behaviour.yaml and "
        f"its test cases. {f'{OWN_BLIND} of your examples are blind test cases now. ' * blind}The plan is on your "
        "screen. Start it, or change something?"
    )
    left = "".join(f"\n({one} was not taken: {why}.)" for one, why in edited.not_taken.items())
    return edited.plan, f"{words}{left}"


def described_before(home: Path, words: str) -> Path | None:
    """The folder of a behaviour that was described earlier and that `words` name."""
    known = described_in(home)
    named = [one for one in known if re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", words, re.IGNORECASE)]
    return known[max(named, key=len)] if named else None  # the longest: one name may begin another


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
