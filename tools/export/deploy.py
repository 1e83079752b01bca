"""deploy: serve the chosen model on a local port, behind a gate that a regression does not pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput, GateRefused
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.auto import AutoInt, LeftOut
from tunesmith.tools.core.estimate import estimate, held_now, lacks_memory, room
from tunesmith.tools.core.local_paths import NO_PLACE
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Estimate, Facts, Inputs, Plan, Request, Result, Stage, is_expected, pinned
from tunesmith.tools.evaluation.gate import Gate, gate_of
from tunesmith.tools.evaluation.lineage import as_measured, own_base
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.export.audit import FALLEN_BACK, fallbacks_sentence
from tunesmith.tools.models.measuring import measured_base
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS, serving_peaks
from tunesmith.tools.models.time_math import WORKER_START_S
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import (
    lora_rank_served,
    need_vllm,
    server_of,
    shorter_context,
    split_steps,
    starting_seconds,
)
from tunesmith.tools.serving.context_settings import (
    ContextSettings,
    context_settings_of,
    context_settings_of_run,
    positions_of,
)
from tunesmith.tools.serving.restarts import port_is_free

_CHECKS_S = 2.5
"""To verify and audit what is served, and have it answer one case."""
GATE_ACCEPTED = "gate.accepted"
"""Event of a deployment in spite of the gate: the arm, what was refused, and the reason that accepted it."""
_SAME_KEY = "keep the key that is in use on this port, where its server still answers; else make a new one"


class DeployRequest(Request):
    """What to serve, and where."""

    arm: Literal["adapter", "merged", "quantized"] = "quantized"
    """Which model to serve."""
    port: AutoInt = Field(default=0, ge=0, le=65535)
    """Port on 127.0.0.1; auto: as what is served now, else a free one."""
    # 256: a shorter conversation has no room for a system prompt and an answer.
    context_tokens: Annotated[int, LeftOut("as it was measured with")] = Field(default=CONTEXT_TOKENS, ge=256)
    """Tokens a conversation may have, answer included."""
    cards: AutoInt = Field(default=0, ge=0)
    """GPUs that vLLM splits the model over; auto: as it was measured, else the fewest that it fits on."""
    rollback: bool = False
    """Serve what was deployed before the present deployment."""
    # A reason is a sentence or two; it is shown beside the deployment ever after.
    accept: Annotated[str, NO_PLACE] = Field(default="", max_length=500)
    """Why it is served although the gate refuses it: what got worse, or form only; the reason is kept."""


class DeployResult(Result):
    """Where the model answers, and its first answer."""

    artifact: str
    url: str
    model: str
    """Name to put into a request's `model`."""
    key_file: str
    """File that holds the API key; readable by its owner only."""
    first_answer: str
    first_case: str
    passed: bool | None
    """Of the first answer; None where it was no case, is not graded without a judge, or could not be graded."""
    comes_back: str = ""
    """After what it answers again by itself, at this address and with this key."""


@dataclass(frozen=True, slots=True)
class DeployContext:
    """What is served now, what would be, and what speaks against it."""

    deployed: tuple[servers.Server, ...] = ()
    earlier: Artifact | None = None
    """The deployment that a rollback goes back to."""
    model: Artifact | None = None
    """What that one served."""
    base: Artifact | None = None
    """The model's own, as it is measured."""
    gate: Gate = field(default_factory=Gate)
    """What the evaluations of its lineage say against it, and warn of."""
    retained: tuple[str, ...] = ()
    """What it kept of what its adapter won, where that was measured."""
    context_settings: ContextSettings = field(default_factory=ContextSettings)
    """How its run asked it."""


def inspect_inputs(request: DeployRequest, inputs: Inputs) -> DeployContext:
    """What is deployed now and was before, the model's own base, whether the port is free, what evaluations say."""
    store = inputs.store
    if not inputs.here:
        return DeployContext(context_settings=context_settings_of(inputs.artifacts))
    refuse_busy_port(store.home, request.port)
    deployed = tuple(servers.deployed(store.home))
    context = DeployContext(deployed, context_settings=context_settings_of(inputs.artifacts))
    if request.rollback:
        earlier = previous_deployment(store)
        model = store.artifact(str(earlier.meta["serves"]))
        own = store.ancestor(model, "base")
        base, context_settings = own and as_measured(store, model.run, own), context_settings_of_run(store, model.run)
        return replace(context, earlier=earlier, model=model, base=base, context_settings=context_settings)
    if (artifact := inputs.artifacts.get(request.arm)) is not None and is_expected(artifact):
        return context
    own = own_base(store, inputs.run, request.arm)
    base = own and as_measured(store, inputs.run, own)
    return replace(
        context, base=base, gate=gate_of(store, inputs.run, request.arm), retained=_gain_sentences(inputs, request)
    )


def _gain_sentences(inputs: Inputs, request: DeployRequest) -> tuple[str, ...]:
    """Of the adapter's gain, in passed cases."""
    return tuple(one.sentence for one in gain_retained(inputs.store, inputs.run) if one.arm == request.arm)


def check_gate(request: DeployRequest, inputs: Inputs) -> None:
    """Raises GateRefused where an evaluation of the lineage forbids it or is missing by now, BadInput for the port."""
    refuse_broken(request, request.arm, inspect_inputs(request, inputs).gate)


def refuse_broken(request: DeployRequest, arm: str, gate: Gate) -> None:
    """Raises GateRefused for what was not measured, and for what the gate refuses unless a reason accepts it."""
    if gate.unmeasured:
        raise GateRefused(f"deploy {arm}: {'; '.join(gate.broken)}")
    if gate.refused and not request.accept.strip():
        raise GateRefused(f"deploy {arm}: {'; '.join(gate.refused)}; `--accept REASON` serves it all the same")


def refuse_busy_port(home: Path, port: int) -> None:
    """Raises BadInput where another program than a deployment of ours holds the port."""
    if port and not port_is_free(port) and not servers.deployed_on(home, port):
        raise BadInput(f"port {port} is in use by another program; choose another, or port=0 for a free one")


def answers_at_once(store: Store, run: str) -> bool:
    """Whether a run's models are asked with thoughts switched off."""
    return context_settings_of_run(store, run).thinking == "off"


def previous_deployment(store: Store) -> Artifact:
    """The newest deployment that serves another artifact than is served now, or was last. Raises BadInput."""
    deployments = store.newest_of_kind("deployment")
    # A deployment that was killed before it was recorded is served all the same.
    served = [server.facts.artifact for server in servers.deployed(store.home)]
    last = served[-1] if served else deployments[0].meta["serves"] if deployments else ""
    for earlier in deployments:
        if earlier.meta["serves"] != last:
            return earlier
    raise BadInput("nothing to roll back to: no other model was deployed before; `tunesmith runs list` shows the runs")


def plan(request: DeployRequest, facts: Facts, context: DeployContext) -> Plan:
    """Price a server start; raises GateRefused where an evaluation of the chain forbids it or is missing."""
    need_vllm(facts)
    earlier, context_settings = context.earlier, context.context_settings
    arm = str(earlier.meta["arm"]) if earlier else request.arm
    served_model = context.model or facts.need(arm, {"adapter": "train", "merged": "merge"}.get(arm, "quantize"))
    refuse_broken(request, arm, context.gate)
    base = context.base
    if earlier and arm == "adapter" and base is None:
        raise BadInput(f"nothing says which base {earlier.meta['serves']} was trained on; deploy another arm")
    base = (base or measured_base(facts)) if arm == "adapter" else None
    rank = lora_rank_served(served_model) if base else 0
    # A server that measured on a GPU may fill it, and one that stays may not: it starts anew there.
    facts = replace(facts, served=frozenset()) if facts.serves_on_gpu else facts
    tokens = _context_tokens(request, base or served_model, context_settings)
    request = request.model_copy(update={"context_tokens": tokens})
    server = server_of(facts, base or served_model, request.context_tokens, rank=rank, asked=request.cards)
    price = estimate(
        "deploy", facts, seconds=Seconds(WORKER_START_S + _CHECKS_S) + starting_seconds(facts, base or served_model),
        rates=facts.serving_rates, like="", **serving_peaks(server, on_gpu=facts.serves_on_gpu), cards=server.cards,
    )  # fmt: skip
    lacks, now = lacks_memory(price, facts.machine), context.deployed
    fitting = shorter_context(facts, base or served_model, request.context_tokens, rank=rank) if lacks else ()
    port = port_to_serve_on(request, now)
    return Plan(
        stage="deploy",
        run=facts.run,
        arm=arm,
        summary=f"serve the {arm} model{f' of {served_model.run}' if earlier else ''} ({served_model.id}) on 127.0.0.1"
        + (f":{port}" if port else ""),
        steps=(
            "verify the model against its manifest",
            *([] if earlier else ["audit its saved tensors against what it was made from; refuse a fault by name"]),
            *_replaced_first(price, facts, context, port),
            "start vLLM on the loopback address with a random key, or keep the server that evaluated this model",
            *([_SAME_KEY] if any(server.port == port for server in now) else []),
            f"take conversations of up to {request.context_tokens} tokens"
            + (", as it was measured" if request.context_tokens == context_settings.context_tokens else ""),
            *context_settings.serving_steps,
            *split_steps(server.cards),
            "ask it one case of the suite",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(model=served_model, base=base),
        pins=context_settings.thoughts.pins,
        estimate=price,
        writes=("a server that runs until `tunesmith serve stop`, and comes back after a crash or a boot",),
        replaces=tuple(f"what is served now on port {server.port} ({server.model})" for server in now),
        refusals=room(price, facts, remedy=_smaller(request), fitting=fitting),
        fitting=fitting,
        notes=(*_in_words(context.gate), *context.retained, *_fallbacks(served_model)),
    )


def _in_words(gate: Gate) -> tuple[str, ...]:
    """What the plan says of the verdict: what is accepted in spite of the gate, and what it warns of."""
    accepted = [f"accepted although the gate refuses it: {line}" for line in gate.refused]
    return (*accepted, *(f"warning: {line}" for line in gate.warnings))


def _fallbacks(model: Artifact) -> tuple[str, ...]:
    count = model.count(FALLEN_BACK, 0)
    return (fallbacks_sentence(count, 0),) if count else ()


def _smaller(request: DeployRequest) -> str:
    """What to try where a model does not fit, however short its conversations."""
    return "a smaller base" if request.arm == "quantized" else "arm=quantized once it is quantized"


def _context_tokens(request: DeployRequest, model: Artifact, measured: ContextSettings) -> int:
    """As asked, else as it was measured. Raises BadInput where more is asked for than the model has positions."""
    known = positions_of(model.known_config)
    if "context_tokens" not in request.model_fields_set:
        return min(measured.context_tokens, known or measured.context_tokens)
    if known and request.context_tokens > known:
        raise BadInput(f"context_tokens={request.context_tokens} is more than this model takes; give at most {known}")
    return request.context_tokens


def port_to_serve_on(request: DeployRequest, deployed: Sequence[servers.Server]) -> int:
    """The port to serve on, 0 for a free one: what is deployed anew answers where its clients ask already."""
    theirs = [server.port for server in deployed if server.runs or port_is_free(server.port)]
    return request.port or next(reversed(theirs), 0)


def _replaced_first(price: Estimate, facts: Facts, context: DeployContext, port: int) -> tuple[str, ...]:
    """What is served now gives way first where it has the port, or the memory."""
    if any(server.port == port for server in context.deployed):
        return (
            "stop what is served now, unless it is the same, to take its address; it comes back if the new one fails",
        )
    if not context.deployed or not held_now(price, facts.machine):
        return ()
    return ("stop what is served now, since both do not fit; it comes back if the new one fails",)


def _without(fields: Mapping[str, object], kind: str) -> Mapping[str, object]:
    """The adapter is served where what should have been is not made."""
    return {**fields, "arm": "adapter"} if fields.get("arm", "quantized") == kind else fields


STAGE = Stage(
    "deploy", DeployRequest, DeployResult, plan, inspect_inputs,
    check_before_start=check_gate,
    usual_context=lambda facts: DeployContext(),
    settable=("arm", "rollback"),
    identified_by=("arm", "rollback"),
    works_on=lambda request: "" if request.rollback else request.arm,
    works_on_newest=lambda request: not request.rollback,
    without=_without,
    needs_measured=True,
    replaces_deployed=True,
    usually_after=("quantized",),
    lasting=("context_tokens", "cards"),
    headline=("url", "model"),
)  # fmt: skip
