"""evaluate at work: the run's suite on an arm, beside the base where both fit on one server."""

from __future__ import annotations

from typing import Any

from tunesmith.memory.errors import NotFound
from tunesmith.tools.evaluate import EvaluateRequest, EvaluateResult
from tunesmith.tools.evaluation import Keys, Sampling, compare_run, read_suite
from tunesmith.tools.stage import ARMS
from tunesmith.tools.work.evaluation import Arm, run_arms, server_answers
from tunesmith.tools.work.job import Job
from tunesmith.tools.work.served import bench_server, key_of, lora_rank_served, served_name


def run(job: Job[EvaluateRequest]) -> EvaluateResult:
    """Ask, compare, and keep the proof of what was served (hashes before and after, arguments, template)."""
    request = job.request
    suite = read_suite(job.verified("suite").path)
    beside_base = request.arm in ("adapter", "prompted")
    served = job.verified("base" if beside_base else request.arm)
    adapter = job.verified("adapter") if request.arm == "adapter" else None
    rank = lora_rank_served(adapter)
    loaded = {served_name(adapter): adapter.path} if adapter else {}
    with bench_server(job, served, adapters_allowed=beside_base, rank=rank, adapters=loaded) as server:
        sampling = Sampling(request.max_tokens, request.temperature, request.repeats)
        key = {**key_of(server, served, suite, max_tokens=request.max_tokens), **sampling.key}
        arms = [Arm("base", server.model, key)] if beside_base else []
        if adapter:
            arms.append(Arm("adapter", served_name(adapter), {**key, "adapter": adapter.sha256}))
        elif request.arm == "prompted":
            preamble = [{"role": "system", "content": request.system_prompt}]
            arms.append(Arm("prompted", server.model, {**key, "system_prompt": request.system_prompt}, preamble))
        else:
            arms.append(Arm(request.arm, server.model, key))
        answer = server_answers(server, sampling, request.concurrency)
        run_arms(job, suite, arms, sampling, answer, fresh=request.fresh)
    job.verified("base" if beside_base else request.arm)  # the weights are still those that the key names
    keys = {arm.name: dict(arm.key) for arm in arms}
    comparisons = _comparisons(job, keys)
    path = job.write_json("results.json", {"arm": request.arm, "keys": keys, "comparisons": comparisons})
    artifact = job.publish("results", path, meta={"arm": request.arm})
    return EvaluateResult(artifact=artifact.id, arm=request.arm, keys=keys, comparisons=comparisons)


def _comparisons(job: Job[EvaluateRequest], keys: Keys) -> list[dict[str, Any]]:
    """The arm under test against every arm before it in the chain of custody that was evaluated."""
    found = []
    for before in ARMS[: ARMS.index(job.request.arm)]:
        try:
            found.append(compare_run(job.store, job.run, before, job.request.arm, unfinished=(job.step.id, keys)))
        except NotFound:
            continue
    return found
