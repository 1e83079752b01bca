"""deploy at work: verify, serve, ask one real case, and only then let the earlier deployment go."""

from __future__ import annotations

import asyncio
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.tools import serving
from tunesmith.tools.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.deploy import DeployRequest, DeployResult
from tunesmith.tools.evaluation import read_suite
from tunesmith.tools.suites import Case
from tunesmith.tools.work.evaluation import Arm, result_of
from tunesmith.tools.work.job import Job
from tunesmith.tools.work.served import bench_spec, lora_rank_served, served_name


def run(job: Job[DeployRequest]) -> DeployResult:
    """Serve the model, and record the deployment with what it serves and what it replaced."""
    made = job.verified("model")
    arm = job.plan.arm
    base = job.verified("base") if arm == "adapter" else None
    before = serving.deployed(job.home)
    server = _serve(job, made, base, before)
    name = served_name(made)
    job.watched.append(server.pid)
    job.progress(1, 2, "asking it one case")
    response, case, passed = _first_answer(job, server, name, made)
    for earlier in before:
        if earlier.id != server.id:
            serving.stop(earlier)
    server = serving.promote(server, artifact=made.id, arm=arm, run=job.run, model=name)
    record = {"serves": made.id, "arm": arm, "url": server.url, "model": name, "replaced": [s.id for s in before]}
    artifact = job.publish("deployment", job.write_json("deployment.json", record), meta=record)
    job.progress(2, 2, f"served at {server.url}")
    return DeployResult(
        artifact=artifact.id,
        url=server.url,
        model=name,
        key_file=str(server.key_file),
        first_answer=response.text,
        first_case=case.case_id if case else "",
        passed=passed,
    )


def _serve(
    job: Job[DeployRequest], made: Artifact, base: Artifact | None, before: list[serving.Server]
) -> serving.Server:
    """A server of the model on the wished port: the one that runs already where it fits, else a new one."""
    if job.vllm is None:
        raise StepFailed("no vLLM found; run `make setup`, or name the program in TUNESMITH_VLLM")
    port = job.request.port
    spec = bench_spec(base or made, adapters_allowed=base is not None, rank=lora_rank_served(made if base else None))
    equal = [s for s in serving.list_servers(job.home) if s.spec == spec and port in (0, s.port) and serving.healthy(s)]
    if equal:
        server = equal[0]
    else:
        serving.stop_all(job.home, role=serving.BENCH)
        for earlier in before:
            if earlier.port == port:
                serving.stop(earlier)  # the port can be held by one only
        server = serving.start(
            job.home,
            spec,
            vllm=job.vllm,
            log_path=job.dir / "vllm.log",
            owner=job.step.id,
            port=port,
            on_wait=lambda seconds: job.progress(0, 2, f"vLLM is starting ({seconds:.0f} s)"),
        )
    if base:
        serving.load_adapter(server, served_name(made), made.path)
    return server


def _first_answer(
    job: Job[DeployRequest], server: serving.Server, model: str, made: Artifact
) -> tuple[ChatResponse, Case | None, bool]:
    """Ask one case of the suite; a server that cannot answer at all is not a deployment."""
    suites = job.store.artifacts(made.run, "suite")
    targets = [case for case in read_suite(suites[-1].path).cases if case.block == "target"] if suites else []
    case = targets[0] if targets else None
    messages: list[dict[str, Any]] = list(case.messages) if case else [{"role": "user", "content": "Hello"}]
    response = asyncio.run(_ask(server, ChatRequest("first", model, messages, max_tokens=128)))
    if response.error:
        serving.stop(server)
        raise StepFailed(f"the server started but did not answer: {response.error}; its log is {server.log}")
    passed = bool(case and result_of(Arm(job.plan.arm, model, {}), case, response).passed)
    return response, case, passed


async def _ask(server: serving.Server, request: ChatRequest) -> ChatResponse:
    async with ChatClient(server.url, server.key) as client:
        return await client.complete(request)
