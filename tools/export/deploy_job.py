"""deploy at work: verify, serve, ask one real case, and only then let the earlier deployment go.

A port can be held by one server only, and so can a memory that both do not fit into: the deployment in the way gives
way before, and comes back where the new one fails. Not covered: a worker that is killed outright in between;
`tunesmith deploy` serves again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tunesmith.memory.errors import GateRefused, StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.evaluation.ask import UNMEASURED_TOKENS, sampling_of_run
from tunesmith.tools.evaluation.asking import Arm, Question, result_of
from tunesmith.tools.evaluation.gate import gate_of
from tunesmith.tools.export.audit_lineage import audit_refusals
from tunesmith.tools.export.deploy import GATE_ACCEPTED, DeployRequest, DeployResult, port_to_serve_on, refuse_broken
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.vllm_program import vllm_of_worker
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.boot_unit import how_it_comes_back
from tunesmith.tools.serving.budget import lora_rank_served
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.context_settings import ContextSettings, bound_to, context_settings_of_run
from tunesmith.tools.serving.model_server import measuring_spec, served_name
from tunesmith.tools.serving.requests import chat_client
from tunesmith.tools.serving.thoughts import without_thought
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case
from tunesmith.tools.suites.loading import newest_cases


def run(job: Job[DeployRequest]) -> DeployResult:
    """Serve the model, and record the deployment with what it serves and what it replaced."""
    served_model, arm = job.verified("model"), job.plan.arm
    base = job.verified("base") if arm == "adapter" else None
    if not job.request.rollback:
        _pass_gate(job, served_model)
        job.progress(0, 2, "auditing the saved tensors")
        if odd := audit_refusals(job.store, served_model, arm):
            raise GateRefused(f"deploy {arm}: {'; '.join(odd)}")
    before = servers.deployed(job.home)
    name = served_name(served_model)
    with _back_on_failure(job, before):
        server = _serve(job, served_model, base, before)
        job.watched.append(server.pid)
        job.progress(1, 2, "asking it one case")
        response, case, passed = _first_answer(job, server, name, served_model)
    # Promoted first: a kill in between leaves two in service, never none.
    facts = servers.ServerFacts(served_model.id, arm, job.run, name)
    server = servers.promote(server, facts, adapter=served_model.path if base else None)
    record = {
        "serves": served_model.id,
        "arm": arm,
        "url": server.url,
        "model": name,
        "replaced": [s.id for s in before],
    }
    artifact = job.publish("deployment", job.write_json("deployment.json", record), meta=record)
    for earlier in servers.deployed(job.home):
        if earlier.id != server.id:
            servers.stop(earlier)
    job.progress(2, 2, f"served at {server.url}")
    return DeployResult(
        artifact=artifact.id,
        url=server.url,
        model=name,
        key_file=str(server.key_file),
        first_answer=response.text,
        first_case=case.case_id if case else "",
        passed=passed,
        comes_back=how_it_comes_back(job.home),
    )


@contextmanager
def _back_on_failure(job: Job[DeployRequest], before: list[servers.Server]) -> Iterator[None]:
    """Whatever was deployed is deployed again, at its address and under its key, where this deployment fails."""
    keys = {server.id: server.key for server in before}
    try:
        yield
    except BaseException as error:  # a Ctrl-C too: what served others goes on
        running = {server.id for server in servers.list_servers(job.home)}
        gone = [server for server in before if server.id not in running]
        try:
            for server in gone:
                job.log(f"{error}; bringing back {server.model} on port {server.port}")
                _bring_back(job, server, keys[server.id])
        except Exception as lost:  # whatever it is: both errors have to be told
            raise StepFailed(
                f"{error}; what was deployed before did not come back either: {lost}; deploy it again"
            ) from error
        raise


def _bring_back(job: Job[DeployRequest], server: servers.Server, key: str) -> None:
    assert job.vllm is not None
    for other in servers.list_servers(job.home):
        if other.port == server.port or other.role == servers.BENCH:
            servers.stop(other)
    again = servers.start(
        job.home, server.spec, vllm=job.vllm, log_path=job.dir / "vllm-before.log", owner=job.step.id,
        port=server.port, role=servers.DEPLOYED, key=key,
    )  # fmt: skip
    adapter = job.store.artifact(server.facts.artifact).path if server.facts.arm == "adapter" else None
    if adapter:
        servers.load_adapter(again, server.facts.model, adapter)
    servers.promote(again, server.facts, adapter=adapter)


def _serve(
    job: Job[DeployRequest], served_model: Artifact, base: Artifact | None, before: list[servers.Server]
) -> servers.Server:
    """A server of the model on the wished port: the one that runs already where it fits, else a new one."""
    vllm = vllm_of_worker(job.vllm)
    port = port_to_serve_on(job.request, before)
    # Of a server that answers there now: where another program has had the port, what was sent there is known to it.
    key = next((earlier.key for earlier in before if earlier.port == port and servers.healthy(earlier)), "")
    own, cards = job.request.context_tokens, job.plan.estimate.cards
    spec = measuring_spec(
        base or served_model,
        vllm=vllm,
        adapters_allowed=base is not None,
        rank=lora_rank_served(served_model if base else None),
        context_settings=replace(_engine(job, served_model), context_tokens=own, cards=cards),
    )
    running = [s for s in servers.list_servers(job.home) if s.spec == spec and port in (0, s.port) and s.loader_key]
    equal = [s for s in running if s.gpu_bytes <= spec.gpu_bytes and servers.healthy(s)]  # one may fill the GPU
    if equal:
        server = equal[0]
    else:
        servers.stop_all(job.home, role=servers.BENCH)
        beside = _fits_beside(job)
        for earlier in before:
            if earlier.port == port or not beside:
                servers.stop(earlier)  # the port can be held by one only, and so can a small memory
        server = servers.start(
            job.home,
            spec,
            vllm=vllm,
            log_path=job.dir / "vllm.log",
            owner=job.step.id,
            port=port,
            key=key,
            on_wait=lambda seconds: job.progress(0, 2, f"vLLM is starting ({seconds:.0f} s)"),
        )
    if base:
        servers.load_adapter(server, served_name(served_model), served_model.path)
    return server


def _pass_gate(job: Job[DeployRequest], served_model: Artifact) -> None:
    """Raises GateRefused for what was measured since the yes; what a reason accepts is recorded with it."""
    arm, request = job.plan.arm, job.request
    gate = gate_of(job.store, served_model.run, arm, artifact=served_model)
    refuse_broken(request, arm, gate)
    if gate.refused:
        job.store.event(
            GATE_ACCEPTED, run=job.run, step=job.step.id, arm=arm, reason=request.accept, refused=list(gate.refused)
        )


def _engine(job: Job[DeployRequest], served_model: Artifact) -> ContextSettings:
    """How the model's run asked it. Raises StepFailed where a baseline has changed that since the yes."""
    context_settings = context_settings_of_run(job.store, served_model.run)
    bound_to(job, context_settings.thoughts)
    return context_settings


def _fits_beside(job: Job[DeployRequest]) -> bool:
    machine, price = measure_machine(job.home), job.plan.estimate
    return price.peak_ram_bytes <= machine.ram_free_bytes and price.peak_vram_bytes <= machine.vram_free_on(price.cards)


def case_to_show(store: Store, run: str, arm: str) -> Case | None:
    """The target case whose answer a deployment shows: the first that is not blind; None where there is none."""
    targets = (case for case in newest_cases(store, run) if case.block == PRIMARY_BLOCK)
    return next((case for case in targets if not case.is_blind and case.asked_of(arm)), None)


def _first_answer(
    job: Job[DeployRequest], server: servers.Server, model: str, served_model: Artifact
) -> tuple[ChatResponse, Case | None, bool | None]:
    """Ask one case of the suite, as an evaluation asks it; a server that cannot answer at all is not a deployment."""
    arm = Arm(job.plan.arm, model, {})
    sampling = sampling_of_run(job.store, served_model.run, job.plan.arm)
    case = case_to_show(job.store, served_model.run, arm.name)
    hello = [{"role": "user", "content": "Hello"}]
    request = ChatRequest("first", model, hello, max_tokens=UNMEASURED_TOKENS + sampling.thinking_tokens)
    if case:
        request = Question(arm, case).request(sampling)
    responses: list[ChatResponse] = []
    chat_client(server).complete_all([request], concurrency=1, on_result=responses.append)
    [response] = responses
    if sampling.thinking == "on" and not response.error:
        response = replace(without_thought(response), error=None)  # a thought that is cut off is an answer all the same
    if response.error:
        servers.stop(server)
        raise StepFailed(f"the server started but did not answer: {response.error}; its log is {server.log}")
    return response, case, result_of(Question(arm, case), response).passed if case else None
