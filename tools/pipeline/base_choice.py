"""Which base a behaviour is taught to and which model writes its rows, where nobody says: the largest that the pace
leaves time for, by the prices that the plan itself would show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import GIB, Facts, PlanQuestion
from tunesmith.tools.evaluation.judge import judge_to_fetch
from tunesmith.tools.export.deploying import DEPLOYS, arm_for
from tunesmith.tools.models.base import settle
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.families import FAMILIES
from tunesmith.tools.models.find import find_model
from tunesmith.tools.models.hub import inspect_hub
from tunesmith.tools.models.known_bases import KnownBase, known_base, known_bases, own_model
from tunesmith.tools.pipeline import there
from tunesmith.tools.pipeline.behaviour_plan import OwnRows, Pace, Quantizing, deploying, plan_for, smoked
from tunesmith.tools.pipeline.forecast import facts_now, forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan, placed, settled
from tunesmith.tools.pipeline.workspace import Workspace

PACE_LIMIT_S: Mapping[Pace, float] = {"fast": 30 * 60, "full": 2 * 3600}
"""That a whole plan may take, from the model's download to its deployment: a break, or half an afternoon; the choice of
the base has to keep to it."""
_JUDGES = "the driver is fetched to judge what code cannot compare: no judge is here"
_LEAST_WRITER_PARAMETERS = 1_000_000_000
"""Nobody has looked at the rows of a smaller writer."""


@dataclass(frozen=True, slots=True)
class _Price:
    """A plan with one base and one writer."""

    seconds: float
    lacks: str = ""
    """Why a step of it cannot be done here."""

    def within(self, limit: float) -> bool:
        return not self.lacks and self.seconds <= limit

    def __str__(self) -> str:
        return f"does not fit ({self.lacks})" if self.lacks else f"would take about {_minutes(self.seconds)}"


@dataclass
class _Prices:
    """Every plan that was priced for one behaviour and pace, all of them by the same facts."""

    ws: Workspace
    folder: Path
    pace: Pace
    facts: Facts
    judged: bool = True
    own: OwnRows | None = None
    on: str = ""
    quantize: Quantizing = "auto"
    known: dict[tuple[str, str], _Price] = field(default_factory=dict)

    def of(self, base: KnownBase, writer: KnownBase) -> _Price:
        pair = (base.model, writer.model)
        if pair not in self.known:
            steps = forecast(self.ws, self.plan(base, writer), facts=self.facts)
            lacks = next((f"{step.stage} {step.lacks[0].partition(';')[0]}" for step in steps if step.lacks), "")
            self.known[pair] = _Price(sum(step.estimate.seconds for step in steps if step.estimate), lacks)
        return self.known[pair]

    def plan(self, base: KnownBase, writer: KnownBase) -> PipelinePlan:
        """A model that writes its own rows is its own teacher: no model is served beside another. The usual judge is
        fetched where neither of them is it and none is there."""
        teacher = "" if _same(base, writer) else writer.model
        packaged = {one.title for one in (base, writer) if one.model in BUNDLED}
        judge = judge_to_fetch(self.ws.store.home, packaged) if self.judged else ""
        arm, why = arm_for(base.config, self.facts)
        open_ = self.quantize == "auto"
        plan = plan_for(
            self.folder, self.pace, model=base.model, teacher=teacher, judged=self.judged, judge=judge, own=self.own,
            arm=arm if open_ else "quantized" if self.quantize == "yes" else "adapter",
            smoke=_to_smoke(base.config, there.facts_for(self.ws, {"on": self.on}, self.facts)),
        )  # fmt: skip
        plan = plan.model_copy(update={"arm_by_base": open_, "reasons": (why,) * open_})
        commits = {one.model: {"revision": one.revision} for one in (base, writer) if one.revision}
        steps = [
            spec.model_copy(update={"fields": spec.fields | commits.get(str(spec.fields.get("model")), {})})
            for spec in plan.steps
        ]
        return placed(plan.model_copy(update={"steps": tuple(steps)}), self.on)


def plan_here(
    ws: Workspace,
    folder: Path,
    pace: Pace,
    *,
    model: str = "",
    writer: str = "",
    say: Callable[[str], None] = lambda text: None,
    facts: Facts | None = None,
    judged: bool = True,
    own: OwnRows | None = None,
    on: str = "",
    quantize: Quantizing = "auto",
) -> PipelinePlan:
    """The plan that teaches the behaviour in `folder` on this machine; what is not named is chosen, with a reason each.

    The largest base whose whole plan fits memory and PACE_LIMIT_S, and for it the strongest writer, no smaller than the
    base; with `own` rows none. With a card models of the hub count too: after a yes they are looked up there. Raises
    BadInput as `plan_for` does, and for a model that is named and cannot be had. What can go there is carried out `on`
    another machine, and priced by it. For a machine that is only asked about nothing is looked up that is written down.
    """
    facts = facts or facts_now(ws)
    prices = _Prices(ws, folder, pace, facts, judged, own, on, quantize)
    working = there.facts_for(ws, {"on": on}, facts)
    listed = known_bases(on_card=working.trains_on_gpu and working.serves_on_gpu)
    named = [_named(name, say) if name else None for name in (model, writer)]
    choice = _choose(prices, listed, *named)
    if not facts.here:
        return _reasoned(prices.plan(choice.base, choice.writer), choice)
    proposed = [one for one in (choice.base, choice.writer) if one.on_hub and one.model not in (model, writer)]
    refused = ""
    if proposed:
        try:
            if ws.ask(_question(proposed)):
                return _settled(prices, choice, say)
            refused = "nobody said yes to it"
        except BadInput as error:
            refused = str(error)
        choice = _choose(prices, [one for one in listed if not one.on_hub], *named)
        flag = "--writer" if model else "--model"
        reason = f"{proposed[0].title} of the hub is left out: {refused} ({flag} {proposed[0].model} takes it)"
        choice = replace(choice, reasons=(*choice.reasons, reason))
    return _settled(prices, choice, say)


def _question(proposed: Sequence[KnownBase]) -> PlanQuestion:
    """What is looked up on the hub is its newest commit; each download is priced, and asked about, by its own step."""
    one = proposed[0]
    text = f"{one.title} ({one.license}, {2 * one.parameters / GIB:.1f} GiB) fits here. Look {one.model} up on the hub?"
    return PlanQuestion(text=text, yes={"model": one.model}, cautious=True)


def _settled(prices: _Prices, choice: _Choice, say: Callable[[str], None]) -> PipelinePlan:
    return _reasoned(settled(prices.plan(choice.base, choice.writer), say), choice)


def _reasoned(plan: PipelinePlan, choice: _Choice) -> PipelinePlan:
    judge = (_JUDGES,) if any(spec.fields.get("role") == "driver" for spec in plan.steps) else ()
    return plan.model_copy(update={"reasons": (*choice.reasons, *judge, *plan.reasons)})


def with_arm_of_base(ws: Workspace, plan: PipelinePlan, *, facts: Facts | None = None) -> PipelinePlan:
    """The plan as its base decides on this machine, or another, what it deploys; what somebody said of that stays."""
    base = next((spec.fields for spec in plan.steps if spec.stage == "base" and "role" not in spec.fields), None)
    if not plan.arm_by_base or base is None:
        return plan
    config = _named(str(base["model"]), lambda text: None, str(base.get("revision", ""))).config
    facts = facts or facts_now(ws)
    arm, why = arm_for(config, facts)
    others = (one for one in plan.reasons if not one.startswith(DEPLOYS))
    train = next((spec.fields for spec in plan.steps if spec.stage == "train"), {})
    smoke = _to_smoke(config, there.facts_for(ws, train, facts))
    steps = smoked(deploying(plan.steps, arm), smoke)
    return plan.model_copy(update={"steps": steps, "reasons": (*others, why)})


def _to_smoke(config: Mapping[str, object], facts: Facts) -> bool:
    """Whether a base is tried before its rows are paid for: on a card, or one of a family that nobody tried."""
    return facts.trains_on_gpu or config.get("model_type") not in FAMILIES


@dataclass(frozen=True, slots=True)
class _Choice:
    base: KnownBase
    writer: KnownBase
    reasons: tuple[str, ...]


def _choose(
    prices: _Prices,
    listed: Sequence[KnownBase],
    model: KnownBase | None,
    writer: KnownBase | None,
) -> _Choice:
    limit = PACE_LIMIT_S[prices.pace]
    bases = [model] if model else list(reversed(listed))  # the largest that fits the time goes first
    skipped: list[tuple[KnownBase, _Price]] = []
    for base in bases:
        writers = [writer] if writer else _writers(base, listed, prices)
        least = prices.of(base, writers[-1])
        if least.within(limit):
            break
        skipped.append((base, least))
    priced = [(one, prices.of(base, one)) for one in writers]
    chosen, price = next((pair for pair in priced if pair[1].within(limit)), priced[-1])
    stronger = priced[: priced.index((chosen, price))]
    reasons = [] if model else [_why_base(base, price, [pair for pair in skipped if pair[0] is not base], limit)]
    reasons += [] if writer or prices.own else [_why_writer(base, chosen, price, stronger, limit)]
    return _Choice(base, chosen, tuple(reasons))


def _writers(base: KnownBase, listed: Sequence[KnownBase], prices: _Prices) -> list[KnownBase]:
    """Who may write rows for a base, the strongest first; the last one is the cheapest. Where a person brings rows,
    nobody has to."""
    if prices.own:
        return [base]
    own = prices.ws.own_model
    least = max(base.parameters, _LEAST_WRITER_PARAMETERS)
    pool = [*listed, *([own_model(Path(own))] if own else [])]
    able = [one for one in pool if one.parameters >= least and not _same(one, base)]
    able += [base] if base.parameters >= least or not able else []
    # the largest first; of equals another than the base
    return sorted(able, key=lambda one: (one.parameters, not _same(one, base)), reverse=True)


def _named(model: str, say: Callable[[str], None], commit: str = "") -> KnownBase:
    """A model that the user names; of one that is not listed its config says how large it is. Raises BadInput."""
    if (known := known_base(model)) is not None:
        return known
    looked_up = settle({"model": model, **({"revision": commit} if commit else {})})
    for sentence in looked_up.notes:
        say(sentence)
    commit = commit or str(looked_up.fields.get("revision", ""))
    config = inspect_hub(model, commit).config if commit else find_model(model)[0].config
    return KnownBase(model, Path(model).name, "", config, revision=commit)


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


def _same(one: KnownBase, other: KnownBase) -> bool:
    return BUNDLED.get(one.model, one.model) == BUNDLED.get(other.model, other.model)


def _why_base(base: KnownBase, price: _Price, larger: Sequence[tuple[KnownBase, _Price]], limit: float) -> str:
    within = _minutes(limit)
    if price.within(limit):
        why = f"the largest that is taught within {within} here, in about {_minutes(price.seconds)} with all steps"
    else:
        why = f"the smallest; no base is taught within {within} here, this one {price}"
    nearest = larger[-1:]
    beyond = "".join(f"; {one.title} {cost} (--model {one.model})" for one, cost in nearest)
    return f"base {base.title} ({base.license}): {why}{beyond}"


def _why_writer(
    base: KnownBase, writer: KnownBase, price: _Price, stronger: Sequence[tuple[KnownBase, _Price]], limit: float
) -> str:
    who = "the base itself writes the rows" if _same(base, writer) else f"{writer.title} writes the rows"
    if not stronger:
        small = "; rows of a stronger one teach more, and `tunesmith rows request` asks an assistant of yours for them"
        return (
            f"{who}: no stronger model is listed for this machine (--writer MODEL takes one)"
            f"{'' if writer.on_hub else small}"
        )
    what = f"the strongest within {_minutes(limit)}" if price.within(limit) else "the cheapest that may"
    one, cost = stronger[-1]
    return f"{who}: {what}; with {one.title} the plan {cost} (--writer {one.model})"
