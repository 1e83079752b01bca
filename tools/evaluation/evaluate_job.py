"""evaluate at work: the run's suite on an arm, beside the base where both fit on one server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pydantic import JsonValue

from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import BadInput, NotFound, StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.settled import load_modules
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.evaluation.advice import prompt_advice
from tunesmith.tools.evaluation.asking import (
    Answerer,
    Arm,
    AskRecord,
    ask_once,
    refuses_adapters,
    run_arms,
    server_answers,
)
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.evaluation.evaluate import EvaluateRequest, EvaluateResult
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.judge_job import agreed_models, judge_waiting
from tunesmith.tools.evaluation.liveness_job import prove_adapter
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.prompts import Prompt, given, prompt_of
from tunesmith.tools.evaluation.protocol import Keys, Sampling
from tunesmith.tools.evaluation.verdict import RULE
from tunesmith.tools.models.measuring import answering_base
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import lora_rank_served
from tunesmith.tools.serving.context_settings import context_settings_at_work
from tunesmith.tools.serving.model_server import key_of, measuring_server, served_name
from tunesmith.tools.suites.case import Suite
from tunesmith.tools.suites.loading import read_suite

_BESIDE_BASE = ("adapter", "prompted")


@dataclass(frozen=True, slots=True)
class _Engine:
    """Arms on one engine, and the one way to ask any of them."""

    arms: Sequence[Arm]
    answer: Answerer
    prompt: Prompt | None = None
    proof: Mapping[str, JsonValue] = field(default_factory=dict)


def run(job: Job[EvaluateRequest]) -> EvaluateResult:
    """Ask, compare, and keep the proof of what answered (hashes before and after, arguments, template)."""
    request = job.request
    sampling = Sampling.on(context_settings_at_work(job), request.max_tokens, request.temperature, request.repeats)
    used = [name for name in job.inputs if name != "base" or request.arm in _BESIDE_BASE]
    before: dict[str, JsonValue] = {name: job.verified(name).sha256 for name in used}
    suite = read_suite(job.inputs["suite"].path)
    agreed_models(job, suite, request.judge)
    if request.arm == "prompted" and not request.system_prompt:
        _agreed_behaviour(job)  # before a server is started for it
    asked = ask_once(job, lambda: _ask(job, suite, sampling))
    judge = judge_waiting(job, suite, judge=request.judge, fresh=request.fresh)
    after: dict[str, JsonValue] = {name: job.verified(name).sha256 for name in used}  # still those that the keys name
    keys = {arm: {**key, **judge} for arm, key in asked.keys.items()}
    comparisons = _comparisons(job, keys)
    advice = [line for one in comparisons if (line := prompt_advice(one, request.goal_rate))]
    trained = request.arm != "prompted"  # a prompt learns nothing
    verdict = evidence_of(job.store, job.run, request.arm, at_work=(job.step.id, keys)).verdict if trained else None
    result = EvaluateResult(
        artifact="",  # its id is known once the rest is published
        arm=request.arm,
        keys=keys,
        comparisons=tuple(comparisons),
        claim=verdict.word if verdict else "",
        claim_sentence=verdict.sentence if verdict else "",
        claim_rule=RULE,
        advice=advice[0] if advice and request.arm == "prompted" else "",
        prompt=asked.prompt,
        proof={"sha256_before": before, "sha256_after": after, "sampling": sampling.key, **asked.proof, **judge},
        taken_over=asked.taken_over,
    )
    written = job.write_json("results.json", result.model_dump(mode="json", exclude={"artifact"}))
    return result.model_copy(update={"artifact": job.publish("results", written, meta={"arm": request.arm}).id})


def _ask(job: Job[EvaluateRequest], suite: Suite, sampling: Sampling) -> AskRecord:
    """Every answer of every arm, stored; their keys, and what else must be known of how they came about."""
    with ExitStack() as stack:
        engine = _engine(job, stack, suite, sampling)
        taken_over = run_arms(job, suite, engine.arms, sampling, engine.answer, fresh=job.request.fresh)
    return AskRecord(
        keys={arm.name: dict(arm.key) for arm in engine.arms},
        prompt=engine.prompt.as_dict() if engine.prompt else {},
        proof=dict(engine.proof),
        taken_over=taken_over,
    )


def _engine(job: Job[EvaluateRequest], stack: ExitStack, suite: Suite, sampling: Sampling) -> _Engine:
    """The arms of this request on a vLLM server; an adapter that it refuses, on transformers."""
    request = job.request
    served = answering_base(job.inputs) if request.arm in _BESIDE_BASE else job.inputs[request.arm]
    adapter = job.inputs.get("adapter") if request.arm == "adapter" else None
    try:
        server = stack.enter_context(
            measuring_server(
                job, served, adapters_allowed=request.arm in _BESIDE_BASE, rank=lora_rank_served(adapter),
                adapters={served_name(adapter): adapter.path} if adapter else {},
                meanwhile=partial(load_modules, ("scipy.special",)),
            )
        )  # fmt: skip
    except StepFailed as error:
        if adapter is None or not refuses_adapters(error):
            raise
        return _local_engine(job, suite, sampling, adapter, _Refusal("vLLM refused the adapter", str(error)))
    key = {**key_of(server, served, suite), **sampling.key}
    answer = server_answers(server, sampling, request.concurrency)
    proof = {name: key[name] for name in ("engine", "engine_arguments", "template", "precision", "lora")}
    proof["server"] = server.id
    base = Arm("base", server.model, key)
    if adapter:
        proven, refusal = _proven(job, server, adapter, suite)
        if refusal:
            return _local_engine(job, suite, sampling, adapter, refusal)
        proof["liveness"] = proven
        arms = [base, Arm("adapter", served_name(adapter), {**key, "adapter": adapter.sha256})]
        return _Engine(arms, answer, None, proof)
    if request.arm != "prompted":
        return _Engine([Arm(request.arm, server.model, key)], answer, None, proof)
    prompt = given(request.system_prompt) if request.system_prompt else prompt_of(_agreed_behaviour(job))
    prompted_key = {**key, "system_prompt": prompt.key}
    prompted = Arm("prompted", server.model, prompted_key, list(prompt.preamble), prompt.schema)
    return _Engine([base, prompted], answer, prompt, proof)


def _agreed_behaviour(job: Job[EvaluateRequest]) -> Spec:
    """The behaviour that the prompt is made from, as the plan shows it."""
    behaviour = load_behaviour(job.request.behaviour)
    job.agreed("behaviour", behaviour.sha256)
    return behaviour


class _Refusal(NamedTuple):
    """Why an adapter is not compared on a server."""

    word: str
    reason: str
    liveness: dict[str, JsonValue] | None = None
    """What its proof measured, where there was one."""


def _proven(
    job: Job[EvaluateRequest], server: servers.Server, adapter: Artifact, suite: Suite
) -> tuple[dict[str, JsonValue], _Refusal | None]:
    """What the proof of the adapter measured, and why the server must not be used for it, if anything says so."""
    try:
        proof = prove_adapter(job, server, adapter, served_name(adapter), suite)
    except (BadInput, StepFailed) as error:  # the adapter may still be measured another way
        return {}, _Refusal("the adapter could not be proven on the server", str(error))
    job.log(f"{'FAILED: ' + proof.fault + '; ' if proof.fault else ''}{proof.summary}")
    measured: dict[str, JsonValue] = proof.model_dump(mode="json")
    return measured, _Refusal("the adapter's proof failed", proof.fault, measured) if proof.fault else None


def _local_engine(
    job: Job[EvaluateRequest], suite: Suite, sampling: Sampling, adapter: Artifact, refusal: _Refusal
) -> _Engine:
    """Both arms in one transformers process, the adapter switched off and on; the refusal is kept."""
    from tunesmith.tools.evaluation.local_model import LocalModel, refuse_unanswerable

    refuse_unanswerable(suite, sampling, f"{refusal.word} ({refusal.reason})")
    job.log(f"{refusal.word}, so both arms answer in one transformers process: {refusal.reason}")
    servers.stop_all(job.home, role=servers.BENCH)
    job.progress(0, 0, f"{refusal.word}; loading base and adapter here")
    base = job.inputs["base"]
    model = LocalModel(job.inputs, adapter.path)
    key = model.key(base, suite, sampling)
    arms = [Arm("base", "base", key), Arm("adapter", "adapter", {**key, "adapter": adapter.sha256})]
    proof = {name: key[name] for name in ("engine", "engine_arguments", "template", "precision", "lora")}
    refusal_proof: dict[str, JsonValue] = {
        "vllm_refused": refusal.reason,
        **({"liveness": refusal.liveness} if refusal.liveness else {}),
    }
    return _Engine(arms, model.answers(sampling), None, {**proof, **refusal_proof})


def _comparisons(job: Job[EvaluateRequest], keys: Keys) -> list[Comparison]:
    """The arm under test against every arm before it in the lineage that was evaluated."""
    comparisons = []
    for before in ARMS[: ARMS.index(job.request.arm)]:
        try:
            comparisons.append(compare_run(job.store, job.run, before, job.request.arm, at_work=(job.step.id, keys)))
        except NotFound:  # an arm that was not evaluated
            continue
    return comparisons
