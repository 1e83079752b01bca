"""What the user described: the words, the examples, the criteria and rules of the behaviour that a run teaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tunesmith.agent.driver.facts.answer import Answer, Question, clip, counted, listed
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import Run
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec import Spec

_SHOWN = 6


def answer(question: Question) -> Answer:
    """The part of a behaviour that was asked for, else the whole in a few lines. Raises NotFound without one."""
    run = question.run(with_stage="generate")
    spec, where = _behaviour(question, run)
    lines = _PARTS.get(question.query.field, _whole)(spec)
    return Answer((f"{spec.name} ({run.id}): {lines[0]}", *lines[1:], f"Its file: {where}."), private=True)


def _behaviour(question: Question, run: Run) -> tuple[Spec, str]:
    steps = question.store.steps(run.id)
    named = [str(s.request.get("behaviour", "demo")) for s in steps if s.stage == "generate"]
    planned = [s.get("fields", {}) for s in run.plan.get("steps", []) if s.get("stage") == "generate"]
    named = named or [str(fields["behaviour"]) for fields in planned if fields.get("behaviour")]
    named = named or [str(s.request["behaviour"]) for s in steps if s.request.get("behaviour")]
    if not named:
        raise NotFound(f"{run.id} names no behaviour: no rows were asked for yet.")
    try:
        return load_behaviour(named[-1]), named[-1]
    except (BadInput, OSError) as error:
        raise NotFound(f"The behaviour of {run.id} cannot be read any more: {clip(error, 200)}") from None


def _whole(spec: Spec) -> list[str]:
    return [
        f"{clip(spec.say or spec.what, 240)}",
        f"When: {clip(spec.when, 240)}",
        f"What: {clip(spec.what, 400)}",
        *([f"Never: {clip(spec.never, 240)}"] if spec.never else []),
        f"It has {counted(len(spec.examples), 'example')}, {counted(len(spec.rules), 'rule')}, "
        f"{len(spec.criteria)} criteria and {len(spec.near_misses)} near misses of your own.",
    ]


def _examples(spec: Spec) -> list[str]:
    shown = [f"  “{clip(e.prompt, 110)}” → “{clip(e.answer, 110)}”" for e in spec.examples[:_SHOWN]]
    more = len(spec.examples) - len(shown)
    return [f"{counted(len(spec.examples), 'example')}:", *shown, *([f"  and {more} more"] if more else [])]


def _list(one: str, many: str, texts: Sequence[str]) -> list[str]:
    if not texts:
        return [f"no {many} of its own."]
    shown = [f"  {clip(text, 260)}" for text in texts[:_SHOWN]]
    more = len(texts) - len(shown)
    return [f"{len(texts)} {one if len(texts) == 1 else many}:", *shown, *([f"  and {more} more"] if more else [])]


def _labels(spec: Spec) -> list[str]:
    fields = [
        f"  {a.name}: "
        + (
            listed([name + (f" ({clip(v.means, 60)})" if v.means else "") for name, v in a.values.items()], 12)
            or a.means
            or a.kind
        )
        for a in spec.attributes
        if a.shown
    ]
    return [f"the answer is made of {counted(len(fields), 'part')}:" if fields else "the answer is free text.", *fields]


_PARTS: Mapping[str, Callable[[Spec], list[str]]] = {
    "examples": _examples,
    "criteria": lambda s: _list("criterion", "criteria", s.criteria),
    "rules": lambda s: _list("rule", "rules", [rule.says for rule in s.rules]),
    "near_misses": lambda s: _list("near miss", "near misses", s.near_misses),
    "labels": _labels,
    "never": lambda s: [f"Never: {clip(s.never or 'nothing was said', 500)}"],
    "when": lambda s: [f"When: {clip(s.when, 500)}"],
}
