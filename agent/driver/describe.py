"""A new behaviour as it is described: the draft of the open description, and the driver's tool that fills it.

The driver says what it understood; code holds each part to what the user typed in this conversation. A part is *said*
where it stands there, else *proposed*, and the table shows which. An example is taken letter for letter, or refused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tunesmith.agent.commands import render
from tunesmith.agent.commands.spec_view import spec_view
from tunesmith.agent.driver.reading import NAME_WORDS, Read, ask_of, named, read_by
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.user_words import stands, stands_exactly
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.answer_shape import fitted
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, Example, described, distinct, missing, slug
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.spec import Spec, Value
from tunesmith.tools.data.verify import verified
from tunesmith.tools.evaluation.judge import judge_comes
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

# The draft


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


def write_down(deps: TurnDeps, interview: Interview, read: Read | None = None) -> Path:
    """Write the folder of a whole description, show it, and close the description.

    `read` is what another model read in its words; None: what the driver proposed. Raises BadInput where a part is
    missing or nothing about the answers can be checked; the description stays open then.
    """
    home = deps.store.home
    made = read or Read(*_checked(interview))
    spec = made.spec.model_copy(update={"unstated": interview.unstated})
    folder = write_behaviour(spec, home / "behaviours", judged=judge_comes(home))
    deps.show(spec_view(spec, _stated(interview), made.left_out))
    deps.show(render.plain(f"{spec.name} is in {folder}; change any field of behaviour.yaml there"))
    _file(home).unlink(missing_ok=True)
    return folder


def read_words(deps: TurnDeps, interview: Interview) -> Read | None:
    """What another model reads in a whole description that code asked for; None where the driver described it."""
    if interview.driven:
        return None
    spec = spec_of(interview)
    try:
        if deps.endpoint is None:
            raise BadInput("no model is here")
        endpoint = deps.endpoint()
        deps.show(render.plain(f"{endpoint.model} reads your words"))
        spec = spec if interview.draft.name else named(spec, ask_of(endpoint), endpoint.model)
        return read_by(deps.ws, endpoint, spec, interview.proposal)
    except (BadInput, StepFailed) as error:  # then code has to do
        why = f"nobody has read your words ({error}): code took what the examples show"
        return Read(verified(spec).spec, "", (why,))


def spec_of(interview: Interview) -> Spec:
    """The words and examples of a whole description as a spec. Raises BadInput, naming what is missing."""
    goal = interview.goal if 0 < len(interview.goal.split()) <= NAME_WORDS else ""
    name = interview.draft.name or slug(goal or interview.draft.what)
    return Spec.model_validate(described(interview.draft.model_copy(update={"name": name})).model_dump())


def _checked(interview: Interview) -> tuple[Spec, str, tuple[str, ...]]:
    held = verified(spec_of(interview), interview.proposal)
    return held.spec, "the driver", held.left_out


# What the driver says of it


class Args(BaseModel):
    """Arguments of a tool: flat, and no other ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Given(Args):
    """An example, as the user typed it."""

    message: str
    answer: str


def _by_value(given: object) -> object:
    """Values with what they stand for; of a list they stand for nothing yet."""
    if not isinstance(given, list):
        return given
    return {str(one.get("value", one.get("label"))) if isinstance(one, dict) else str(one):
            str(one.get("means", "")) if isinstance(one, dict) else "" for one in given}  # fmt: skip


Values = Annotated[dict[str, str], BeforeValidator(_by_value)]
"""Value → what it stands for."""


class FieldOf(Args):
    """A part of the answer that differs from message to message."""

    name: str
    kind: Literal["label", "copied", "text", "number", "list"] | None = None
    values: Values = Field({}, description="Each with what it means.")
    missing: str = Field("", description="Shown where the message does not say it.")


class DescribeBehaviour(Args):
    """Write down a new behaviour in the user's words; called again it amends. It is shown as a table, and what is
    missing is returned: ask for that. When nothing is, call plan_fine_tune."""

    name: str = Field("", description="In two or three words.")
    when: str = Field("", description="Which messages it is for; quote the user.")
    what: str = Field("", description="What exactly the answer is; quote the user.")
    never: str = Field("", description="What it must never do; quote the user.")
    examples: tuple[Given, ...] = Field((), description="The user's, letter for letter; never your own.")
    template: str = Field("", description="The form of all answers, with {field} for each part.")
    fields: tuple[FieldOf, ...] = Field((), description="Parts of the answer; copied: from the message.")
    labels: Values = Field({}, description="If it is a choice: every answer, with what it means.")
    look_alikes: tuple[str, ...] = Field((), description="Messages that want an ordinary answer.")
    every_message: bool | None = Field(None, description="Applies to all messages.")
    language: str = Field("", description="Of the messages, such as German.")
    base: str = Field("", description="Model to teach, as the user named it.")
    drop: bool = Field(False, description="Give it up.")


_TEXTS = ("when", "what", "never")


def describe_behaviour(deps: TurnDeps, args: DescribeBehaviour) -> object:
    """Take over what the driver understood, hold it to the user's words, and show the draft. Raises BadInput."""
    home, turns, refused = deps.store.home, deps.said_by_user(), list[str]()
    opened = open_interview(home)
    if args.drop:
        if opened is None:
            raise BadInput("no behaviour is being described, so there is nothing to drop")
        return {"dropped": str(drop(home).name), "note": "nothing was started; what was said is kept in that file"}
    before = opened or Interview(goal=deps.prompt, pace="full", quantize="auto", driven=True)
    examples = tuple(_examples(args.examples, turns, refused))
    texts = {name: text for name in _TEXTS if (text := getattr(args, name).strip())}
    name = {"name": slug(args.name)} if args.name else {}
    try:
        kept = {**before.draft.model_dump(), **texts, **name}
        draft = DescriptionDraft.model_validate({**kept, "examples": distinct((*before.draft.examples, *examples))})
    except ValidationError as error:
        raise BadInput(sentence(error.errors()[0], DescriptionDraft)) from None
    base = _base(deps, args.base, refused) or before.base
    now = before.model_copy(
        update={"draft": draft, "base": base, "proposal": _proposed(before.proposal, args, refused),
                "unstated": before.unstated or (bool(examples) and deps.edit is None)}
    )  # fmt: skip
    said = tuple(text for _, text in _parts(now) if text in before.said or stands(text, turns))
    return _shown(deps, keep(home, now, said=said), refused)


def _examples(given: Sequence[Given], turns: Sequence[str], refused: list[str]) -> Iterator[Example]:
    """The examples that stand in the user's words letter for letter; the others are refused by their numbers."""
    for number, one in enumerate(given, 1):
        altered = [name for name in ("message", "answer") if not stands_exactly(getattr(one, name), turns)]
        if altered:
            refused.append(f"example {number}: its {' and its '.join(altered)} is not what the user typed")
            continue
        try:
            yield Example(prompt=one.message, answer=one.answer.replace("\\n", "\n"))
        except ValidationError as error:
            refused.append(f"example {number}: {sentence(error.errors()[0], Example)}")


def _base(deps: TurnDeps, named: str, refused: list[str]) -> str:
    try:
        deps.check_grounded({"model": named} if named else {})
    except BadInput as error:
        refused.append(str(error))
        return ""
    return named


def _proposed(before: Proposal, args: DescribeBehaviour, refused: list[str]) -> Proposal:
    """The proposal with what the driver says anew; fields of other names stay. What is no field is refused."""
    parts = {part.name: part for part in before.parts}
    for one in args.fields:
        given = {
            "name": one.name, "kind": None if one.kind == "list" else one.kind, "values": _named(one.values),
            "missing": one.missing, "many": (1, 2) if one.kind == "list" else None,
        }  # fmt: skip
        try:
            parts[one.name] = Part.model_validate(given)
        except ValidationError as error:
            refused.append(f"field {one.name}: {sentence(error.errors()[0], Part)}")
    anew = {"template": args.template, "labels": _named(args.labels), "near_misses": args.look_alikes,
            "every_message": args.every_message, "language": args.language}  # fmt: skip
    stated = {name: value for name, value in anew.items() if value not in ("", (), {}, None)}
    return before.model_copy(update={**stated, "parts": tuple(parts.values())})


def _named(values: Mapping[str, str]) -> dict[str, Value]:
    return {value: Value(means=means) for value, means in values.items()}


# Said, or proposed


def _parts(interview: Interview) -> Iterator[tuple[str, str]]:
    """Every part of the description with its text: when, field total, label billing, look-alike 2, …"""
    draft, proposal = interview.draft, interview.proposal
    yield from ((name, text) for name in _TEXTS if (text := getattr(draft, name)))
    yield from [("template", proposal.template)] * bool(proposal.template)
    for part in proposal.parts:
        yield f"field {part.name}", part.name
        yield from ((f"{part.name} {value}", value) for value in part.values)
    for value, of in proposal.labels.items():
        yield f"label {value}", value
        yield from [(f"what {value} means", of.means)] * bool(of.means)
    yield from ((f"look-alike {number}", text) for number, text in enumerate(proposal.near_misses, 1))


def _stated(interview: Interview) -> frozenset[str]:
    """The parts of a spec whose every word was said."""
    by_part = {"attributes": ("field", "label", *(part.name for part in interview.proposal.parts), "what"),
               "answer": ("template",), "near_misses": ("look-alike",)}  # fmt: skip
    parts = {key: text in interview.said for key, text in _parts(interview)}
    of = {name: [is_said for key, is_said in parts.items() if key not in _TEXTS and key.startswith(begins)]
          for name, begins in by_part.items()}  # fmt: skip
    whole = {name for name, all_ in of.items() if all_ and all(all_)}
    return frozenset(whole | {name for name in _TEXTS if parts.get(name)})


def _shown(deps: TurnDeps, now: Interview, refused: list[str]) -> dict[str, object]:
    """Show the draft, and tell the driver what of it was said, and what is left out or missing."""
    draft, lacking = now.draft, missing(now.draft)
    answers = [example.answer for example in draft.examples]
    if lacking:
        _, why = fitted(answers, now.proposal.template) if answers and now.proposal.template else (None, "")
        left_out = [*refused, *([f"the template does not give every example: {why}"] if why else [])]
        by = {text: "said" if text in now.said else "proposed" for _, text in _parts(now)}
        rows = [[key, text, by[text]] for key, text in _parts(now)]
        rows += [[f"example {n}", echoed(one), "said"] for n, one in enumerate(draft.examples, 1)]
        deps.show(render.rows_table(["part", "of the new behaviour", "by"], rows, exact=True))
    else:
        spec, _, found = _checked(now)
        left_out = [*refused, *found]
        deps.show(spec_view(spec, _stated(now), left_out))
    values = [(key, text) for key, text in _parts(now) if key not in _TEXTS and not key.startswith("what ")]
    unseen = [key for key, text in values if text not in now.said and not stands(text, answers)]
    told = {"when": draft.when, "what": draft.what, "never": draft.never, "base": now.base}
    return {
        "said": [key for key, text in _parts(now) if text in now.said],
        "proposed": [key for key, text in _parts(now) if text not in now.said],
        "in_no_word_and_no_example": unseen,
        "left_out": left_out,
        "missing": [_lacking(name, len(distinct(draft.examples))) for name in lacking],
        "draft": {name: text for name, text in told.items() if text}
        | {"examples": [{"message": one.prompt, "answer": one.answer} for one in draft.examples]},
        "note": "the table is on the user's screen: ask for what is missing, or whether what is proposed is right"
        if lacking
        else "the table is on the user's screen; plan_fine_tune plans and prices it once it is right",
    }


def _lacking(part: str, examples: int) -> str:
    return f"{EXAMPLES_MIN - examples} more of {EXAMPLES_MIN} examples" if part == "examples" else part
