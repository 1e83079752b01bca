"""Putting one message to the models of a run: which answer, what must be served for it, and what that costs.

Base and adapter answer on one server, told apart by the request; merged and quantized models have servers of their
own. These are the servers of an evaluation, so a step may adopt one that was started here, and the other way round.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from tunesmith.memory.arms import CHAIN
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import as_int, as_record
from tunesmith.memory.records import ASIDE_RUNS, DONE, Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import estimate, held_now
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Plan, pinned
from tunesmith.tools.evaluation.evaluate import EvaluateResult, sampling_of
from tunesmith.tools.evaluation.lineage import Lineage, as_measured
from tunesmith.tools.evaluation.pairing import Evaluations
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.models.memory_math import serving_peaks
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import answering_seconds
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import lora_rank_served, need_vllm, serving_memory, starting_seconds
from tunesmith.tools.serving.context_settings import ContextSettings, context_settings_of_run
from tunesmith.tools.serving.model_server import measuring_spec, served_name
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.spec import ServerSpec

ASK = "ask"
TUNED = CHAIN[1:]
UNMEASURED_TOKENS = 128
"""Tokens that an answer may have where no evaluation says: an answer of a paragraph, that no model goes on from for
long."""
STAYS_MINUTES = 10
"""So long a server that was started for a question waits for the next one: a person reads and types, and nobody pays
for a card all night."""
_PROMPT_TOKENS = 200
"""For a price: what people type, with the behaviour's own words around it."""


@dataclass(frozen=True, slots=True)
class Answering:
    """An arm, and what has to be served for it to answer."""

    arm: str
    artifact: Artifact
    served: Artifact
    """Whose weights a server loads: of an adapter those of its base."""
    spec: ServerSpec

    @property
    def model(self) -> str:
        """The name that a request asks for."""
        return served_name(self.artifact if self.arm == "adapter" else self.served)

    @property
    def adapter(self) -> Artifact | None:
        """What a server loads beside its model."""
        return self.artifact if self.arm == "adapter" else None

    def answered_by(self, server: Server, tokens: int) -> bool:
        """Whether a server that runs can answer for it as it was measured, a conversation of so many tokens."""
        one, wanted = server.spec, self.spec
        return (
            bool(server.loader_key)  # else no guard stands before it
            and server.role != servers.DRIVER
            and one.weights_sha256 == wanted.weights_sha256 != ""
            and one.max_lora_rank >= (wanted.max_lora_rank if self.adapter else 0)
            and one.without_thoughts == wanted.without_thoughts
            and one.max_model_len_tokens >= min(tokens, wanted.max_model_len_tokens)
        )


# Which models


def run_to_ask(store: Store, named: str = "") -> str:
    """The run that is named, else the newest that made a model. Raises NotFound."""
    if named:
        return store.run(named).id
    runs = [run.id for run in store.runs() if run.name not in ASIDE_RUNS]
    for kinds in (TUNED, ("base",)):
        if newest := next((run for run in runs if any(store.artifacts(run, kind) for kind in kinds)), ""):
            return newest
    raise NotFound("no model was made yet; `tunesmith demo` makes one, `tunesmith teach FILE` one of your own")


def named_arms(named: str) -> tuple[str, ...]:
    """The arms in `base,adapter`. Raises BadInput for an unknown one."""
    arms = tuple(dict.fromkeys(word.strip().lower() for word in named.split(",") if word.strip()))
    for arm in arms:
        if arm == "prompted":
            raise BadInput("prompted is the base under a prompt that an evaluation chose, no model; ask base, or tuned")
        if arm not in CHAIN:
            near = difflib.get_close_matches(arm, CHAIN, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise BadInput(f"no arm {arm[:40]!r}; {hint}the arms are {listed(CHAIN)}")
    return arms


def newest_tuned(store: Store, run: str) -> Artifact | None:
    """The tuned model that is meant where none is named: of a run what is deployed now, else what it made last."""
    tuned = [artifact for artifact in store.artifacts(run) if artifact.kind in TUNED]
    served = {server.facts.artifact for server in servers.deployed(store.home)}
    deployed = [artifact for artifact in tuned if artifact.id in served]
    return next(reversed(deployed or tuned), None)


def chosen_models(store: Store, run: str, arms: Sequence[str]) -> dict[str, Artifact]:
    """The model of each arm; without any, the base beside the tuned model that is meant. The base is theirs.

    Raises BadInput for an arm that the run has not made.
    """
    meant = newest_tuned(store, run)
    models = {arm: _newest(store, run, arm) for arm in arms} or ({meant.kind: meant} if meant else {})
    own = _own_base(store, run, models)
    return {arm: own if arm == "base" else models[arm] for arm in arms or ("base", *models)}


def answering(store: Store, run: str, arms: Sequence[str], vllm: str | None) -> list[Answering]:
    """What answers for each of the `chosen_models`.

    Raises BadInput as that does, and for an arm whose files are gone, or that vLLM refused before.
    """
    chosen, context_settings = chosen_models(store, run, arms), context_settings_of_run(store, run)
    own = _own_base(store, run, chosen)
    return [_answering(store, run, one, arm, own, context_settings, vllm) for arm, one in chosen.items()]


def _own_base(store: Store, run: str, models: dict[str, Artifact]) -> Artifact:
    """The base that the latest of these models was made from; without a tuned one, that of the model that is meant."""
    tuned = next((one for arm, one in reversed(models.items()) if arm != "base"), newest_tuned(store, run))
    base = Lineage.of(store, tuned, tuned.kind).base if tuned else None
    return base or _newest(store, run, "base")


def _newest(store: Store, run: str, arm: str) -> Artifact:
    artifacts = store.artifacts(run, arm)
    if not artifacts:
        there = [kind for kind in CHAIN if store.artifacts(run, kind)]
        raise BadInput(f"{run} has made no {arm} model; it can ask {listed(there) or 'nothing yet'}")
    return artifacts[-1]


def _answering(
    store: Store,
    run: str,
    artifact: Artifact,
    arm: str,
    own: Artifact,
    context_settings: ContextSettings,
    vllm: str | None,
) -> Answering:
    measured = as_measured(store, run, own) if arm in ("base", "adapter") else None
    served = measured or artifact
    for one in (artifact, served):
        if not one.path.is_dir():
            raise BadInput(f"the files of the {one.kind} model {one.id} are gone: {one.path} is not there")
    adapters = store.artifacts(run, "adapter")
    beside = artifact if arm == "adapter" else adapters[-1] if adapters else None
    refused = _refused_adapter(store, run) if measured else ""
    if refused and arm == "adapter":
        raise BadInput(
            f"the adapter {artifact.id} was not measured on vLLM ({refused}), so it cannot be asked there; ask the "
            "merged model, which `tunesmith merge` makes: --arms base,merged"
        )
    spec = measuring_spec(
        served,
        vllm=vllm,
        adapters_allowed=measured is not None and not refused,
        rank=lora_rank_served(beside if beside and "lora_rank" in beside.meta else None),
        context_settings=context_settings,
    )
    return Answering(arm, artifact, served, spec)


def _refused_adapter(store: Store, run: str) -> str:
    """Why the run's newest evaluation of an adapter could not use vLLM; empty where it did, or there is none."""
    steps = [step for step in store.steps(run, status=DONE) if step.stage == "evaluate" and step.arm == "adapter"]
    result = EvaluateResult.of(steps[-1]) if steps else None
    return " ".join(str(result.proof.get("vllm_refused", "")).split())[:200] if result else ""  # a line or two


def sampling_of_run(store: Store, run: str, arm: str) -> Sampling:
    """How the newest evaluation of an arm, else of any, drew its answers."""
    evaluations = Evaluations.of(store, run)
    steps = evaluations.of_arm(arm) or [*evaluations.keys]
    drawn = sampling_of(store.step(steps[-1]).request) if steps else {}
    on = partial(Sampling.on, context_settings_of_run(store, run))
    return as_record(on, {"max_tokens": UNMEASURED_TOKENS, **drawn})


# What it costs


@dataclass(frozen=True, slots=True)
class ToServe:
    """What has to be started before the arms can answer, and the machine as it is then."""

    arms: tuple[str, ...]
    """All that are asked."""
    start: tuple[Answering, ...]
    """One for each server that does not run."""
    machine: Machine
    """With the memory of measuring servers that are not asked, and of the driver, counted as free."""
    alone: Machine
    """The same as if every other server had ended, of those that are asked too."""
    deployed: tuple[Server, ...] = ()
    """What is deployed: it stays, whatever lacks room."""
    stops: tuple[Server, ...] = ()
    """Measuring servers that are not asked."""
    answer_tokens: int = UNMEASURED_TOKENS
    questions: int = 1

    @property
    def peaks(self) -> list[dict[str, int]]:
        """`ram_bytes` and `vram_bytes` of each server that is started."""
        return [
            serving_peaks(
                serving_memory(s.served, s.spec.max_model_len_tokens, rank=s.spec.max_lora_rank, cards=s.spec.cards),
                on_gpu=s.spec.device == "cuda",
            )
            for s in self.start
        ]

    @property
    def cards(self) -> int:
        """GPUs that each of them is split over."""
        return max((one.spec.cards for one in self.start), default=1)

    @property
    def side_by_side(self) -> bool:
        """Whether all servers that are asked fit at once; else one ends before the next is started."""
        ram, vram = (sum(peak[name] for peak in self.peaks) for name in ("ram_bytes", "vram_bytes"))
        return ram <= self.machine.ram_free_bytes and vram <= self.machine.vram_free_on(self.cards)


def plan(to_serve: ToServe, facts: Facts) -> Plan:
    """Price the servers that have to be started. Raises BadInput without a vllm program."""
    need_vllm(facts)
    beside, peaks = to_serve.side_by_side, to_serve.peaks
    machine = to_serve.machine if beside else to_serve.alone
    here = replace(facts, machine=machine, served=frozenset())
    combined = sum if beside else max
    price = estimate(
        ASK, here, seconds=sum((_seconds(here, one, to_serve) for one in to_serve.start), Seconds()),
        rates=facts.serving_rates,
        ram_bytes=combined(peak["ram_bytes"] for peak in peaks),
        vram_bytes=combined(peak["vram_bytes"] for peak in peaks), cards=to_serve.cards,
    )  # fmt: skip
    price = price.model_copy(update={"basis": price.basis.partition("; ")[0]})  # no step of its kind will ever have run
    inputs = {one.arm: one.artifact for one in to_serve.start}
    inputs |= {f"served for {one.arm}": one.served for one in to_serve.start if one.served.id != one.artifact.id}
    return Plan(
        stage=ASK,
        run=facts.run,
        arm=",".join(to_serve.arms),
        summary=f"start {listed([_named(one) for one in to_serve.start])} for {_questions(to_serve)}",
        steps=(
            *(f"end the measuring server of {server.model}, which nothing uses now" for server in to_serve.stops),
            "verify what is served against its manifest",
            *(f"start vLLM for {_named(one)} on the loopback address, with a random key" for one in to_serve.start),
            *(("one server after the other: they do not fit side by side",) if len(peaks) > 1 and not beside else ()),
            f"ask {listed(to_serve.arms)} {_questions(to_serve)}: up to {to_serve.answer_tokens} tokens an answer",
        ),
        request={"run": facts.run, "arms": list(to_serve.arms)},
        inputs=pinned(**inputs),
        estimate=price,
        writes=(f"an event in the records, no step; a server ends after {STAYS_MINUTES} minutes without a question",),
        refusals=held_now(price, machine, remedy=_remedy(to_serve)),
        free_ram_bytes=machine.memory_free_bytes,
        free_vram_bytes=machine.vram_free_on(to_serve.cards),
        free_disk_bytes=machine.disk_free_bytes,
    )  # fmt: skip


def _questions(to_serve: ToServe) -> str:
    return "a question" if to_serve.questions == 1 else f"{to_serve.questions} questions"


def _named(one: Answering) -> str:
    return f"the base with adapter {one.artifact.id}" if one.adapter else f"the {one.arm} model {one.artifact.id}"


def _seconds(facts: Facts, one: Answering, to_serve: ToServe) -> Seconds:
    answered = answering_seconds(
        shape_of(one.served.known_config, as_int(one.served.meta.get("parameters") or one.served.bytes / 2)),
        one.served.bytes,
        facts.serving_rates,
        answers=to_serve.questions,
        answer_tokens=to_serve.answer_tokens,
        prompt_tokens=_PROMPT_TOKENS,
        at_once=1,
        on_card=facts.serves_on_gpu,
    )
    return starting_seconds(facts, one.served) + answered


def _remedy(to_serve: ToServe) -> str:
    """What to try where a server does not fit: what is deployed keeps its memory, so that is asked, or ended."""
    if not to_serve.deployed:
        return "stopping another program, or --arms with a smaller model, such as quantized"
    names = listed([server.facts.model or server.model for server in to_serve.deployed])
    asked = " or ".join(dict.fromkeys(server.facts.arm or "the deployed arm" for server in to_serve.deployed))
    return f"--arms {asked}, which is served now, or `tunesmith serve stop`, which ends {names}"
