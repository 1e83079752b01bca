"""What a run came to, what to try next, whether it overfits, which model to deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands.explain import estimated_seconds
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, Context, clip, named, shortened
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Query, RunName
from tunesmith.agent.queries.curves import lines_of
from tunesmith.agent.queries.facts import Proposed
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed, size
from tunesmith.tools.evaluation.comparison import WORSE
from tunesmith.tools.evaluation.findings import Finding, Proposal, findings
from tunesmith.tools.evaluation.gate import gate_of

_VERDICTS = ("learned", "partly learned", "form only", "not learned", "no decision")
FEW = 0.1
"""Share of the target cases up to which a failure is no pattern."""
_WEIGHT = (
    "not measured", "not trained", "not learned", "form only", "base too weak", "over-triggers", "forgot",
    "partly learned", "no decision", "lost in quantization", "rows mislabelled", "rows narrow",
    "suite too small",
)  # fmt: skip
"""Kinds of findings with something to do, the weightiest first."""


class FindingsQuery(Query):
    """What a run's records mean, and advice: what to try next, why a block fell or nothing was learned, overfitting,
    which model to deploy and why one is refused, whether the prompt alone would do, training longer, more rows, a
    bigger base would help."""

    kind: Literal["findings"] = "findings"
    about: Literal[
        "all", "next", "why", "overfitting", "deploy", "prompt_alone", "train_longer", "more_rows", "bigger_base"
    ] = "all"
    run: RunName = ""
    arm: Annotated[AnyArm, Field(description="For why and deploy")] = ""
    block: Annotated[AnyBlock, Field(description="For why")] = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The findings of a run, and what is asked of them."""

    query: FindingsQuery
    context: Context
    run: Run
    findings: Sequence[Finding]

    @property
    def store(self) -> Store:
        return self.context.store

    def of(self, *kinds: str) -> list[Finding]:
        """The findings of some kinds."""
        return [one for one in self.findings if one.kind in kinds]

    def first(self, *kinds: str) -> Finding | None:
        """The first one of some kinds."""
        return next(iter(self.of(*kinds)), None)

    @property
    def weighty(self) -> list[Finding]:
        """Those with something to do, the weightiest first."""
        return sorted(self.of(*_WEIGHT), key=_weight)

    def proposed(self, one: Finding | None) -> list[str]:
        """The step that a finding proposes, with its price; none where it proposes none."""
        if one is None or one.next is None:
            return []
        seconds = estimated_seconds(self.context.ws, self.run.id, one.next)
        cost = f", about {duration(seconds)}" if seconds is not None else ""
        say = "say it, or “do that”, and it is priced before anything starts"
        return [f"{_words(one.next)}{one.next.why}{cost}); {say}."]


def answer(query: FindingsQuery, context: Context) -> Answer:
    """The findings of a run, as far as they were asked for. Raises NotFound without a run."""
    try:
        run = scores.evaluated_run(context, query.run, arm=query.arm)
    except NotFound:
        run = context.run(query.run)
    asked = _Asked(query, context, run, findings(context.store, run.id))
    first, *rest = _ABOUT[query.about](asked)
    lines = tuple(line for line in (first, *rest) if line)
    text = "\n".join(lines)
    proposed = [one.next for one in asked.findings if one.next and _words(one.next) in text]
    proposed.sort(key=lambda one: text.index(_words(one)))
    facts = tuple(_fact(run, one) for one in asked.findings)
    # a screen's worth; they are in the order of their weight
    return Answer(lines[:7], facts, proposals=tuple(Proposed(run.id, one.stage, one.fields) for one in proposed))


def _fact(run: Run, one: Finding) -> Mapping[str, object]:
    """A finding, and the step that it proposes; its sentence quotes no case."""
    stage, fields = (one.next.stage, dict(one.next.fields)) if one.next else ("", None)
    return {"run": run.id, "finding": one.kind, "sentence": one.says, "next_stage": stage, "next_fields": fields}


def _weight(one: Finding) -> float:
    """Its place among the findings: what the test does not call worse comes behind a verdict that falls short."""
    by_chance = one.kind == "forgot" and one.evidence.get("verdict") != WORSE
    return _WEIGHT.index("no decision") + 0.5 if by_chance else _WEIGHT.index(one.kind)


def _words(proposal: Proposal) -> str:
    """A proposed step as it may be said."""
    fields = " ".join(f"{name}={_plain(value)}" for name, value in proposal.fields.items())
    return f"To try next: {proposal.stage}{' ' if fields else ''}{fields} ("


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _says(ones: Sequence[Finding], most: int = 220) -> list[str]:  # two lines: the page has the whole
    return [shortened(one.says, most) for one in ones]


def _all(asked: _Asked) -> list[str]:
    lines = _says(asked.findings, 300) or [f"The records of {asked.run.id} say nothing yet: no arm was measured."]
    proposal = next((line for one in asked.weighty if (line := asked.proposed(one))), [])
    # The rest is on the page: what weighs most comes first.
    return [f"{named(asked.run, 30)}: {lines[0]}", scores.failing(asked.store, asked.run, FEW), *lines[1:5], *proposal]


def _next(asked: _Asked) -> list[str]:
    """What to try next, and why."""
    if not asked.weighty:
        good = asked.first("learned")
        first = good.says if good else "The records show nothing that needs mending."
        rest = [one for one in asked.findings if one is not good][:3]  # an answer stays on a screen
        return [f"{asked.run.id}: {first}", *_says(rest), _deploy_line(asked)]
    one = asked.weighty[0]
    lines = [f"{asked.run.id}: {shortened(one.says, 300)}"]
    lines += [line for other in asked.weighty[:2] for line in asked.proposed(other)]
    lines += [f"Cases: {listed([clip(case, 40) for case in one.cases], 6)}."] if one.cases else []
    # Two others, in a line or two each: the first is what to do something about.
    return [*lines, *_says([other for other in asked.findings if other is not one][:2], 200)]


def _overfitting(asked: _Asked) -> list[str]:
    """Whether it overfits, by the validation loss."""
    trained = [step for step in asked.store.steps(asked.run.id, status=DONE) if step.stage == "train"]
    if not trained:
        raise NotFound(f"{asked.run.id} has no finished training, so nothing can be said about overfitting.")
    one = asked.first("not over-trained")
    first = one.says if one else "Too few validation losses were kept to say whether it overfits."
    general = "; ".join(f"{s.arm} {s}" for s in scores.of_run(asked.store, asked.run.id) if s.block == "general")
    lines = [f"{asked.run.id}: {first}", *lines_of(asked.store, trained[-1])[:2]]
    return [*lines, f"General block: {general}." if general else ""]


def _advised(
    asked: _Asked, one: Finding | None, otherwise: str, *more: str, rather_not: bool = False, also: str = ""
) -> list[str]:
    """What a finding says and proposes; where there is none that no record asks for it, and what the run came to, with
    the findings of the kind `also`."""
    says = f"{'Rather not: ' * rather_not}{one.says}" if one else otherwise
    rest = asked.proposed(one) if one else _says(asked.of(*_VERDICTS, also))[:3]
    return [f"{asked.run.id}: {says}", *rest, *more]


def _longer(asked: _Asked) -> list[str]:
    """Whether training on would help, by the validation losses and what passes."""
    one = asked.first("partly learned")
    elsewhere = one is not None and one.next is not None and one.next.stage != "train"
    return _advised(asked, one, "The records show no need for it.", rather_not=elsewhere, also="not over-trained")


def _more_rows(asked: _Asked) -> list[str]:
    """Whether more or other rows would help, by the findings that speak of rows."""
    one = asked.first("form only", "rows narrow", "rows mislabelled")
    one = one or next((other for other in asked.findings if other.next and other.next.stage == "generate"), None)
    written = [step for step in asked.store.steps(asked.run.id, status=DONE) if step.stage == "generate"]
    usable = sum(row.usable for step in written[-1:] for row in asked.store.rows(step.id))
    were = "was" if usable == 1 else "were"
    return _advised(asked, one, "No record asks for more rows.", f"{count(usable, 'row')} of it {were} kept.")


def _bigger_base(asked: _Asked) -> list[str]:
    """Whether another base would help: by the finding that this one is too weak, else by what it came to."""
    fits = "“would Qwen2.5-0.5B train here?” says what this machine can hold."
    return _advised(asked, asked.first("base too weak"), "No record says that the base is too weak.", fits)


def _prompt_alone(asked: _Asked) -> list[str]:
    """Whether the best prompt does as well as the fine-tune: by the prompted arm, where it was measured."""
    target = [one for one in scores.of_run(asked.store, asked.run.id) if one.block == "target"]
    prompted = next((one for one in target if one.arm == "prompted"), None)
    others = "; ".join(f"{one.arm} {one}" for one in target if one.arm != "prompted")
    if prompted is None:
        how = "“evaluate the prompted base” does it, priced first"
        measured = f"Of the target cases pass: {others}." if others else "No arm was measured yet."
        return [f"{asked.run.id}: unknown, the prompted arm was never measured; {how}.", measured]
    would = asked.first("the prompt would do")
    first = would.says if would else "The prompt alone does not do as well:"
    return [f"{asked.run.id}: {first} prompted {prompted}; {others}."]


def _why(asked: _Asked) -> list[str]:
    """Why a block fell, or nothing was learned: the finding about it, with its cases."""
    query, run = asked.query, asked.run
    about = [one for one in asked.findings if query.block and one.evidence.get("block") == query.block]
    about += asked.of("lost in quantization", "kept in quantization") if query.arm == "quantized" else []
    if query.block and not about:
        own = [s for s in scores.of_run(asked.store, run.id) if s.block == query.block]
        rates = "; ".join(f"{s.arm} {s}" for s in own) or "not measured"
        verdict = asked.first(*_VERDICTS) if query.block == "target" else None
        if verdict:
            return [f"{run.id}: {verdict.says}", f"{query.block}: {rates}."]
        return [f"No {query.block} case that the base passes was lost in {run.id}: {rates}."]
    chosen = about or asked.weighty or [*asked.findings]
    if not chosen:
        return [f"{run.id}: the records hold no reason."]
    one = chosen[0]
    cases = f"The cases: {listed([clip(case, 40) for case in one.cases], 6)}." if one.cases else ""
    # an answer stays on a screen
    by_block = scores.failing(asked.store, run) if one.kind in _VERDICTS else ""
    return [f"{run.id}: {shortened(one.says, 300)}", by_block, cases, *asked.proposed(one), *_says(chosen[1:3], 200)]


def _deploy(asked: _Asked) -> list[str]:
    """The evaluated arms, what the gate says of each, which one to take; what was deployed or refused."""
    store, run = asked.store, asked.run
    measured, (arms, open_arms) = scores.of_run(store, run.id), _arms(asked)
    if not arms:
        raise NotFound(f"{run.id} has no evaluated model that could be deployed; “evaluate” measures one.")
    sizes = {a.kind: a.bytes for a in store.artifacts(run.id) if a.kind in arms}
    lines = [_recommended(run, arms, open_arms)]
    if (arm_meant := asked.query.arm) in arms:  # one that was asked about is spoken of first
        allowed = "may be deployed" if arm_meant in open_arms else "is refused by the gate"
        lines = [f"The {arm_meant} model of {run.id} {allowed}. {lines[0]}"]
    if past := store.artifacts(run.id, "deployment"):
        lines.insert(0, f"{run.id}'s {past[-1].meta.get('arm', 'own')} model was deployed ({past[-1].step}).")
    for arm in arms:
        passed = "; ".join(f"{s.block} {s.passed} of {s.judged}" for s in measured if s.arm == arm)
        gate = "may be deployed" if arm in open_arms else "the gate refuses it"
        weighs = f", {size(sizes[arm])}" if arm in sizes else ""
        lines.append(f"  {arm}{weighs}: {passed}; {gate}")
    refused = [arm for arm in arms if arm not in open_arms][-1:]
    return [*lines, *(f"Why {arm} is refused: {clip(gate_of(store, run.id, arm).broken[0], 240)}" for arm in refused)]


def _recommended(run: Run, arms: Sequence[str], open_arms: Sequence[str]) -> str:
    if not open_arms:
        return f"None of {run.id}'s models passes the gate, neither {' nor '.join(arms)}; none should be deployed."
    best = "quantized" if "quantized" in open_arms else open_arms[-1]
    why = {
        "quantized": "it is the smallest and nothing broke on the way to it",
        "adapter": "it is what was measured on the base's own server",
    }
    rest = "" if len(open_arms) < len(arms) else " The gate refuses none of its models."
    return f"Of {run.id} rather the {best} model: {why.get(best, 'it is the last that passes the gate')}.{rest}"


def _arms(asked: _Asked) -> tuple[list[str], list[str]]:
    """The tuned arms that were measured, and those of them that the gate lets through."""
    measured = {s.arm for s in scores.of_run(asked.store, asked.run.id)}
    arms = [arm for arm in scores.TUNED if arm in measured]
    return arms, [arm for arm in arms if not gate_of(asked.store, asked.run.id, arm).broken]


def _deploy_line(asked: _Asked) -> str:
    if not (arms := _arms(asked)[1]):
        return "The gate would refuse a deployment of every model that was measured."
    best = f"deploying its {arms[-1]} model: “deploy the {arms[-1]} model of {asked.run.id}”"
    return f"Nothing stands in the way of {best}."


_ABOUT: Mapping[str, Callable[[_Asked], list[str]]] = {
    "all": _all, "next": _next, "why": _why, "overfitting": _overfitting, "deploy": _deploy,
    "prompt_alone": _prompt_alone, "train_longer": _longer, "more_rows": _more_rows, "bigger_base": _bigger_base,
}  # fmt: skip
