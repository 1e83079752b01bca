"""The price of a whole plan before its first step: every step planned on what the steps before it should leave.

Each stage says itself what to expect of it (`Stage.expected_artifact`), so that its followers' own plans do the
arithmetic. A forecast is for looking at: nothing can be approved by it, and every step is priced again, on what is
really there, when its turn comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import Lack, held_notes
from tunesmith.tools.core.format import size
from tunesmith.tools.core.stage import Estimate, Facts, Fitting, Inputs, Request
from tunesmith.tools.machine.vllm_program import no_vllm
from tunesmith.tools.models.fitting import urgency
from tunesmith.tools.models.measuring import answers_for
from tunesmith.tools.pipeline import catalog, planning_facts, there
from tunesmith.tools.pipeline.plan_file import PipelinePlan, parse_request
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.serving.budget import served_name_of
from tunesmith.tools.serving.eviction import as_found, machine_for_a_step


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one step of a plan will probably cost; `estimate` is None where that shows only when it is due."""

    stage: str
    summary: str
    estimate: Estimate | None = None
    refused: str = ""
    """Why the step is known to fail: what it names or needs is no good now."""
    on: str = ""
    """The other machine, as its price says it; empty: this one."""
    decided: Mapping[str, object] = field(default_factory=dict)
    """The request with what its plan chooses; empty where there is no plan yet."""
    lacks: tuple[str, ...] = ()
    """Why it could not be done on this machine; of memory and disk a Lack each."""
    held: tuple[str, ...] = ()
    """What it would not find as the machine is now, for other programs hold it."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Field of `decided` → why its plan chose it."""
    fitting: tuple[Fitting, ...] = ()
    """Where memory is lacking: what would fit, best first."""

    @property
    def never(self) -> Lack | None:
        """What of memory or disk this machine lacks for it."""
        return next((lack for lack in self.lacks if isinstance(lack, Lack)), None)


def forecast(ws: Workspace, plan: PipelinePlan, *, facts: Facts | None = None) -> list[Forecast]:
    """Price every step of `plan` as if the ones before it were done. Never raises for what cannot be known yet.

    `facts` are gathered now where they are not given, as for several plans that are held against each other.
    """
    facts = facts or facts_now(ws)
    prices = []
    for spec in plan.steps_to_run:
        price, artifact = _forecast_step(ws, spec.stage, spec.fields, facts)
        prices.append(price)
        if artifact is not None:
            facts = replace(facts, artifacts={**facts.artifacts, artifact.kind: artifact})
        facts = replace(facts, served=facts.served | _served_after(spec.stage, spec.fields, facts))
    return prices


def _served_after(stage: str, fields: dict[str, object], facts: Facts) -> set[str]:
    """The model whose server a step leaves for the next one."""
    entry = catalog.BY_NAME[stage]
    if not entry.serves:
        return set()
    try:
        kind = entry.load().works_on(parse_request(stage, fields))
    except TunesmithError:  # its own forecast says why
        return set()
    named = (facts.artifacts.get(kind) for kind in (kind, *entry.needs))
    served = next((artifact for artifact in named if artifact and "config" in artifact.meta), None)
    try:
        return {served_name_of(answers_for(served, facts))} if served else set()
    except TunesmithError:  # the quantized base is not there yet: nothing of it is served
        return set()


def _forecast_step(
    ws: Workspace, stage: str, fields: dict[str, object], facts: Facts
) -> tuple[Forecast, Artifact | None]:
    """The price of one step, and what it should leave."""
    entry = catalog.BY_NAME[stage]
    declared = entry.load()
    unknown = Forecast(stage, entry.summary)
    try:
        request = parse_request(stage, fields)
        context = declared.inspect_inputs(request, Inputs(ws.store, facts.run, facts.artifacts, facts.here))
        facts = there.facts_for(ws, request, facts)
    except TunesmithError as error:
        return replace(unknown, refused=str(error)), None
    unknown = replace(unknown, on=facts.there)

    def left(request: Request) -> Artifact | None:
        return declared.expected_artifact(request, facts.artifacts) or declared.foreseen(request, context)

    try:
        artifact = left(request)
    except KeyError:  # an older version recorded less of what it is made from than this rests on
        return unknown, None
    try:
        plan = declared.plan(request, facts, context)
        # What a plan decides, as how long a conversation may be, bears on the price of the steps after it.
        decided = parse_request(stage, plan.request)
    except (TunesmithError, KeyError):  # a KeyError: an older version recorded less than a price is made of
        return unknown, artifact
    found = as_found(ws.store.home, facts.machine, replaces_deployed=declared.replaces_deployed and facts.here)
    held = held_notes(plan.estimate, found) if facts.here else ()
    priced = replace(
        unknown, summary=plan.summary, estimate=plan.estimate, lacks=plan.refusals, decided=plan.request,
        held=held, reasons=plan.reasons, fitting=plan.fitting,
    )  # fmt: skip
    try:
        return priced, left(decided)
    except KeyError:  # as above
        return priced, artifact


def check_ahead(ws: Workspace, plan: PipelinePlan) -> list[Forecast]:
    """The forecast of a plan, refused where a step is known to fail, before anything of it has started. Raises BadInput
    as `looked_ahead` does, and for what it cannot be done for."""
    prices, why_not = looked_ahead(ws, plan)
    if why_not:
        raise BadInput(why_not)
    return prices


def looked_ahead(ws: Workspace, plan: PipelinePlan, facts: Facts | None = None) -> tuple[list[Forecast], str]:
    """The forecast of a plan, and the sentence that says why this machine cannot carry it out; empty: it can.

    Looked at: the disk that all steps need together, and memory that a step would lack whatever other programs let go
    of; what these hold now is left to each step's own turn. Raises BadInput without vLLM for a stage that serves, and
    for what a step names or inspects and that is no good.
    """
    there.check_reached(ws, [spec.fields for spec in plan.steps])
    facts = facts or facts_now(ws)
    prices = forecast(ws, plan, facts=facts)
    for number, price in enumerate(prices, 1):
        on_this = not there.is_there(plan.steps[number - 1].fields)
        without_vllm = catalog.BY_NAME[price.stage].serves and on_this and not facts.vllm
        if without_vllm or price.refused:
            why = no_vllm(ws.vllm_from) if without_vllm else price.refused
            raise BadInput(f"step {number} ({price.stage}): {why}")
    needed, free = sum(price.estimate.disk_bytes for price in prices if price.estimate), facts.machine.disk_free_bytes
    if needed > free:
        remedy = "make room, move TUNESMITH_HOME, or take a smaller base"
        return prices, f"the plan needs {size(needed)} of disk in all, {size(free)} free; {remedy}"
    lacking = [(price, lack, number) for number, price in enumerate(prices, 1) if (lack := price.never)]
    if not lacking:
        return prices, ""
    price, lack, number = min(lacking, key=lambda one: urgency(one[1], one[0].fitting))
    return prices, f"step {number} ({price.stage}) {lack}"


def facts_now(ws: Workspace) -> Facts:
    """What the plan of a run that is not opened yet may know of this machine."""
    machine = machine_for_a_step(ws.store.home)
    return planning_facts.gather(ws.store, "", vllm=ws.vllm, vllm_from=ws.vllm_from, machine=machine)
