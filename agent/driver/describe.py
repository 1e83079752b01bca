"""A new behaviour as the driver describes it, and its folder once it is whole.

The driver says what it understood; code holds each part to what the user typed in this conversation. A part is *said*
where it stands there, else *proposed*, and the table shows which. An example is taken letter for letter, or refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from tunesmith.agent.commands import render
from tunesmith.agent.commands.reading import Read, ask_of, named, read_by
from tunesmith.agent.commands.spec_view import spec_view
from tunesmith.agent.driver.drafts import Interview, close, described_as, drop, echoed, keep, open_interview
from tunesmith.agent.driver.told import TEXTS, Described, Given, borne_out, parts_of, proposed_anew, spec_of
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.user_words import as_typed, stands
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.answer_shape import fitted
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, Example, distinct, missing, slug
from tunesmith.tools.data.verify import verified
from tunesmith.tools.evaluation.judge import judge_comes


def write_down(deps: TurnDeps, interview: Interview) -> Path:
    """Write the folder of a whole description, show it, and close the description.

    Raises BadInput where a part is missing or nothing about the answers can be checked; it stays open then.
    """
    home, read = deps.store.home, None if interview.driven else _read_words(deps, interview)
    made = read or borne_out(interview)
    spec = made.spec.model_copy(update={"unstated": interview.unstated})
    folder = write_behaviour(spec, home / "behaviours", judged=judge_comes(home))
    if read:  # else the table of what the driver described is on the screen
        deps.show(spec_view(spec, _stated(interview), made.left_out))
    deps.show(render.plain(f"{spec.name} is in {folder}; change any field of behaviour.yaml there"))
    close(home, spec.name)
    return folder


def _read_words(deps: TurnDeps, interview: Interview) -> Read:
    """What another model reads in a whole description that code asked for."""
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


# What the driver says of it


class DescribeBehaviour(Described):
    """Write down a new behaviour in the user's words; again: amends it. Returns what is missing."""

    base: str = Field(default="", description="Model to teach.")
    take_out: tuple[str, ...] = Field(default=(), description="Parts of the result: `example 2`.")
    drop: bool = Field(default=False, description="Give it up.")


def describe_behaviour(deps: TurnDeps, args: DescribeBehaviour) -> object:
    """Take over what the driver understood, hold it to the user's words, and show the draft. Raises BadInput."""
    home, turns, refused = deps.store.home, deps.said_by_user(), list[str]()
    opened = open_interview(home)
    if args.drop:
        if opened is None:
            raise BadInput("no behaviour is being described, so there is nothing to drop")
        return {"dropped": str(drop(home).name), "note": "nothing was started; what was said is kept in that file"}
    before = _without(opened or _begun(deps, args), args.take_out, refused)
    examples = tuple(_examples(args.examples, turns, refused))
    texts = {name: text for name in TEXTS if (text := getattr(args, name).strip())}
    name = {"name": slug(args.name)} if args.name else {}
    try:
        kept = {**before.draft.model_dump(), **texts, **name}
        draft = DescriptionDraft.model_validate({**kept, "examples": distinct((*before.draft.examples, *examples))})
    except ValidationError as error:
        raise BadInput(sentence(error.errors()[0], DescriptionDraft)) from None
    base = _base(deps, args.base, refused) or before.base
    now = before.model_copy(
        update={"draft": draft, "base": base, "proposal": proposed_anew(before.proposal, args, refused),
                "unstated": before.unstated or (bool(examples) and deps.edit is None)}
    )  # fmt: skip
    said = tuple(text for _, text in parts_of(now) if text in before.said or stands(text, turns))
    return _shown(deps, keep(home, now, said=said), refused)


def _begun(deps: TurnDeps, args: DescribeBehaviour) -> Interview:
    """A new description; where a planned one is only amended, that one once more."""
    name = slug(args.name) if args.name else deps.draft.name if deps.draft else ""
    amended = None if args.when and args.what else described_as(deps.store.home, name)
    if name and amended:
        return amended.model_copy(update={"driven": True, "conversation": ""})
    return Interview(goal=deps.prompt, pace="full", quantize="auto", driven=True)


def _without(interview: Interview, parts: Sequence[str], refused: list[str]) -> Interview:
    """The description without some parts; what it has no part of is refused."""
    draft, proposal, out = interview.draft, interview.proposal, {*parts}
    named = [(f"example {n}", one) for n, one in enumerate(draft.examples, 1)]
    refused += [f"there is no part {one[:60]!r}" for one in parts if one not in dict([*parts_of(interview), *named])]
    near = [one for n, one in enumerate(proposal.near_misses, 1) if f"look-alike {n}" not in out]
    changes = {
        "parts": tuple(part for part in proposal.parts if f"field {part.name}" not in out),
        "labels": {value: of for value, of in proposal.labels.items() if f"label {value}" not in out},
        "near_misses": tuple(near), "template": "" if "template" in out else proposal.template,
    }  # fmt: skip
    kept = {"examples": tuple(one for name, one in named if name not in out), **dict.fromkeys(out & {*TEXTS}, "")}
    return interview.model_copy(
        update={"draft": draft.model_copy(update=kept), "proposal": proposal.model_copy(update=changes)}
    )


def _examples(given: Sequence[Given], turns: Sequence[str], refused: list[str]) -> Iterator[Example]:
    """The examples that stand in the user's words letter for letter; the others are refused by their numbers."""
    for number, one in enumerate(given, 1):
        typed = {name: as_typed(getattr(one, name), turns) for name in ("message", "answer")}
        if altered := [name for name, text in typed.items() if not text]:
            refused.append(f"example {number}: its {' and its '.join(altered)} is not what the user typed")
            continue
        try:
            yield Example(prompt=typed["message"], answer=typed["answer"].replace("\\n", "\n"))
        except ValidationError as error:
            refused.append(f"example {number}: {sentence(error.errors()[0], Example)}")


def _base(deps: TurnDeps, named: str, refused: list[str]) -> str:
    try:
        deps.check_grounded({"model": named} if named else {})
    except BadInput as error:
        refused.append(str(error))
        return ""
    return named


# Said, or proposed


def _stated(interview: Interview) -> frozenset[str]:
    """The parts of a spec whose every word was said: what code asked for, it has from its user."""
    by_part = {"attributes": ("field", "label", *(part.name for part in interview.proposal.parts), "what"),
               "answer": ("template",), "near_misses": ("look-alike",)}  # fmt: skip
    parts = {key: text in interview.said for key, text in parts_of(interview)}
    of = {name: [is_said for key, is_said in parts.items() if key not in TEXTS and key.startswith(begins)]
          for name, begins in by_part.items()}  # fmt: skip
    whole = {name for name, all_ in of.items() if all_ and all(all_)}
    return frozenset(whole | {name for name in TEXTS if parts.get(name) or (name in parts and not interview.driven)})


def _shown(deps: TurnDeps, now: Interview, refused: list[str]) -> dict[str, object]:
    """Show the draft, and tell the driver what of it was said, and what is left out or missing."""
    draft, lacking = now.draft, missing(now.draft)
    answers = [example.answer for example in draft.examples]
    if lacking:
        _, why = fitted(answers, now.proposal.template) if answers and now.proposal.template else (None, "")
        left_out = [*refused, *([f"the template does not give every example: {why}"] if why else [])]
        by = {text: "said" if text in now.said else "proposed" for _, text in parts_of(now)}
        rows = [[key, text, by[text]] for key, text in parts_of(now)]
        rows += [[f"example {n}", echoed(one), "said"] for n, one in enumerate(draft.examples, 1)]
        deps.show(render.rows_table(["part", "of the new behaviour", "by"], rows, exact=True))
    else:
        made = borne_out(now)
        left_out = [*refused, *made.left_out]
        deps.show(spec_view(made.spec.model_copy(update={"unstated": now.unstated}), _stated(now), left_out))
    values = {*now.proposal.labels, *(value for part in now.proposal.parts for value in part.values)}
    unseen = [text for text in sorted(values) if text not in now.said and not stands(text, answers)]
    told = {"when": draft.when, "what": draft.what, "never": draft.never, "base": now.base}
    return {
        "said": [key for key, text in parts_of(now) if text in now.said],
        "proposed": [key for key, text in parts_of(now) if text not in now.said],
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
