"""vLLM on the device with our arguments: its start, memory and answers, an adapter on it, and what it gives back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.gpu.exports import at_eight_bits
from tests.gpu.measures import make_model, rates_of
from tests.gpu.table import MODELS, SECONDS, UPPER, Check, skipped
from tests.gpu.trainings import RANK, trained_adapter, trained_mixture
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import Estimate, Plan, Request
from tunesmith.tools.evaluation.liveness_job import prove_adapter
from tunesmith.tools.export.round_to_nearest import round_base
from tunesmith.tools.machine.gpus import measure_gpus, server_environment
from tunesmith.tools.machine.processes import tree_own_bytes
from tunesmith.tools.machine.vllm_program import vllm_of_worker
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.memory_math import GPU_SERVER_BYTES, adapter_slot_bytes
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import answering_seconds, server_start
from tunesmith.tools.pipeline.gpu_check.card_job import free_bytes
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, failed, stated
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import FREED_WITHIN_S, rank_served, serving_memory
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.serving.context_settings import USUAL
from tunesmith.tools.serving.model_server import measuring_spec
from tunesmith.tools.suites.loading import load_suites

NAME = "live"
_ASKED = [{"role": "user", "content": "Say 1."}]
_SLOTS_RANK = 256
"""So high that the hundredths of a GiB in vLLM's log tell what a small mixture's slots take."""
WEIGHTS = re.compile(r"Model loading took ([\d.]+) GiB")
_CACHE = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_SHARE = (0.8, 1.05)
"""Of what a server may take of the card that it has for itself: vLLM makes its cache of all that is left of it."""
_FREED = (0.98, 1.02)
"""Of what was free before a server, once it was stopped."""
_GIB = 1 << 30
NO_LOG = "vLLM's log does not say it in the words of the pinned release"
_NO_CARD = "on a CPU vLLM does not say it"


def base(check: Check) -> Iterator[Finding]:
    """A model at 16 bits with adapters allowed, as every arm is measured."""
    model = artifact_of(check, make_model(check, "dense", check.sizes.dense), "base")
    adapter = artifact_of(check, trained_adapter(check), "adapter")
    before = free_bytes()
    began = time.monotonic()
    server = started(check, model)
    try:
        yield from served(check, server, model, time.monotonic() - began, before, "")
        servers.load_adapter(server, NAME, adapter.path)
        suite = load_suites([Path(str(files("tunesmith.prompts"))) / "suites" / "general.yaml"])
        job = _job(check, model)
        proof = prove_adapter(job, server, adapter, NAME, suite)
        yield stated(
            "adapter liveness",
            expected="every kind of module counts, and the base stays as it was",
            measured=proof.fault or "so it is",
            holds=not proof.fault,
            why=proof.summary,
        )
    finally:
        servers.stop(server)
    yield from _freed(check, before)


def quantized(check: Check) -> Iterator[Finding]:
    """The same model, rounded to 4 bits, as a base is measured that has no room at 16."""
    folder = check.dir / MODELS / "w4a16"
    folder.mkdir(parents=True, exist_ok=True)
    round_base(make_model(check, "dense", check.sizes.dense), folder, lambda done, total, note: None)
    return _alone(check, artifact_of(check, folder, QUANTIZED_BASE), ", W4A16")


def fp8(check: Check) -> Iterator[Finding]:
    """The model in floats of 8 bits, as it is deployed."""
    return _alone(check, artifact_of(check, at_eight_bits(check, "FP8"), "quantized"), ", FP8", rank=0)


def w8a8(check: Check) -> Iterator[Finding]:
    """The model in integers of 8 bits, weights and activations."""
    return _alone(check, artifact_of(check, at_eight_bits(check, "W8A8"), "quantized"), ", W8A8", rank=0)


def split(check: Check) -> Iterator[Finding]:
    """The model split over two cards; on a CPU the same server as any."""
    model = artifact_of(check, make_model(check, "dense", check.sizes.dense), "base")
    for finding in _alone(check, model, "", cards=2 if check.on_card else 1):
        if finding.name in ("server start", "answers"):
            yield finding.model_copy(update={"name": f"split {finding.name}"})


def _alone(check: Check, model: Artifact, which: str, *, rank: int = RANK, cards: int = 1) -> Iterator[Finding]:
    """A server with nothing loaded on it, from its start to its end."""
    before, began = free_bytes(), time.monotonic()
    server = started(check, model, rank=rank, cards=cards)
    try:
        for finding in served(check, server, model, time.monotonic() - began, before, which):
            if "beside" not in finding.name:
                yield finding
    finally:
        servers.stop(server)


def mixture(check: Check) -> Iterator[Finding]:
    """A mixture whose server allows adapters of its experts, and one that allows those of attention alone."""
    names, told = ("adapter slots of experts", "adapter of attention alone"), "it is taken, and answers"
    if not check.on_card:
        yield from (skipped(name, "vLLM has no adapters of experts on a CPU") for name in names)
        return
    config, shape = check.sizes.mixture, ModelShape.of(check.sizes.mixture)
    folder, adapter = make_model(check, "mixture", config), trained_mixture(check)
    loaded = []
    for kind in ("base", QUANTIZED_BASE):  # as which it is served decides what its adapters may have
        server = started(check, artifact_of(check, folder, kind, config), rank=_SLOTS_RANK)
        try:
            loaded.append(logged(server, WEIGHTS))
            if kind == QUANTIZED_BASE:
                servers.load_adapter(server, NAME, adapter)
                [answer] = answered(server, [ChatRequest("1", NAME, _ASKED, check.sizes.answer_tokens)])
        finally:
            servers.stop(server)
    every, alone = loaded
    if every is None or alone is None:
        yield failed(names[0], NO_LOG)
    else:
        slots = [adapter_slot_bytes(shape, _SLOTS_RANK, attention_only=only) for only in (False, True)]
        expected = slots[0] - slots[1]
        yield compared(names[0], expected=expected, measured=every - alone, within=(0.85, 1.1), unit="bytes")
    yield stated(names[1], expected=told, measured=answer.error or told, holds=not answer.error)


def started(check: Check, model: Artifact, *, rank: int = RANK, cards: int = 1) -> servers.Server:
    """Rank 0: without adapters."""
    vllm, settings = vllm_of_worker(check.vllm), replace(USUAL, cards=cards)
    spec = measuring_spec(
        model, vllm=vllm, adapters_allowed=rank > 0, rank=rank_served(rank), context_settings=settings
    )
    log = check.dir / f"vllm-{model.kind}.log"
    return servers.ensure(check.home, spec, vllm=vllm, log_path=log, owner=check.step)


def served(
    check: Check, server: servers.Server, model: Artifact, seconds: float, free_before: int, which: str
) -> Iterator[Finding]:
    """How long it took to start, what it takes, and how fast it answers."""
    price = server_start(model.bytes, rates_of(check), on_card=check.on_card)
    env = server_environment(measure_gpus()) if check.on_card else {}
    added = " ".join(f"{name}={value}" for name, value in env.items() if name.startswith("VLLM_"))
    yield compared(
        f"server start{which}", expected=price.total, measured=seconds, within=SECONDS, unit="seconds", why=added
    )
    if check.on_card:
        yield from _on_card(server, model, free_before - free_bytes(), which)
    else:
        expected, measured = serving_memory(model).ram_bytes, tree_own_bytes([server.pid])
        yield compared(f"server memory{which}", expected=expected, measured=measured, within=(0.1, 1.1), unit="bytes")
        yield skipped(f"served weights{which}", _NO_CARD)
        yield skipped(f"server beside weights and cache{which}", _NO_CARD)
    yield _answers(check, server, model, which)


def _on_card(server: servers.Server, model: Artifact, taken: int, which: str) -> Iterator[Finding]:
    card = chosen_gpu(measure_gpus())
    assert card is not None
    yield compared(f"server memory{which}", expected=server.gpu_bytes, measured=taken, within=_SHARE, unit="bytes")
    loaded, cached = logged(server, WEIGHTS), logged(server, _CACHE)
    names = (f"served weights{which}", f"server beside weights and cache{which}")
    if loaded is None or cached is None:
        yield from (failed(name, NO_LOG) for name in names)
        return
    needed = serving_memory(model, rank=server.spec.max_lora_rank)
    weights = needed.vram_bytes - needed.cache_bytes - GPU_SERVER_BYTES
    yield compared(names[0], expected=weights, measured=loaded, within=(0.8, 1.05), unit="bytes")
    beside = taken - loaded - cached
    yield compared(names[1], expected=GPU_SERVER_BYTES, measured=beside, within=UPPER, unit="bytes")


def logged(server: servers.Server, what: re.Pattern[str]) -> float | None:
    """Bytes that its log tells."""
    found = what.search(server.log.read_text(errors="replace"))
    return float(found[1]) * _GIB if found else None


def _answers(check: Check, server: servers.Server, model: Artifact, which: str) -> Finding:
    """So many answers at once, of their full length, against what they are priced at."""
    sizes, name = check.sizes, f"answers{which}"
    ignored = {"ignore_eos": True}
    requests = [
        ChatRequest(f"{number}", server.model, [{"role": "user", "content": f"Say {number}."}], sizes.answer_tokens,
                    extra=ignored)
        for number in range(sizes.answers)
    ]  # fmt: skip
    _asked(server, requests)  # the first ones warm up
    took = _asked(server, requests)
    shape = shape_of(model.meta["config"], int(model.meta["parameters"]))
    price = answering_seconds(
        shape, model.bytes, rates_of(check), answers=sizes.answers, answer_tokens=sizes.answer_tokens,
        prompt_tokens=20, at_once=sizes.answers, on_card=check.on_card,
    ).total  # fmt: skip
    rate = sizes.answers * sizes.answer_tokens / took
    return compared(name, expected=price, measured=took, within=SECONDS, unit="seconds", why=f"{rate:.0f} tokens/s")


def _asked(server: servers.Server, requests: list[ChatRequest]) -> float:
    """Seconds until all are answered. Raises StepFailed for one that is not."""
    began = time.monotonic()
    errors = [answer.error for answer in answered(server, requests) if answer.error]
    if errors:
        raise StepFailed(f"{len(errors)} of {len(requests)} were not answered: {errors[0]}")
    return time.monotonic() - began


def answered(server: servers.Server, requests: list[ChatRequest]) -> list[ChatResponse]:
    async def ask() -> list[ChatResponse]:
        answers: list[ChatResponse] = []
        async with ChatClient(server.url, server.key, listener=server.listener) as client:
            await client.complete_many(requests, concurrency=len(requests), on_result=answers.append)
        return answers

    return asyncio.run(ask())


def _freed(check: Check, before: int) -> Iterator[Finding]:
    """What is free again, and how long that took."""
    names = ("memory freed", "seconds until it is free")
    if not check.on_card:
        yield from (skipped(name, "a CPU's memory is free as soon as the process has ended") for name in names)
        return
    began = time.monotonic()
    while free_bytes() < _FREED[0] * before and time.monotonic() - began < 2 * FREED_WITHIN_S:
        time.sleep(0.1)
    took = time.monotonic() - began
    yield compared(names[0], expected=before, measured=free_bytes(), within=_FREED, unit="bytes")
    yield compared(names[1], expected=FREED_WITHIN_S, measured=took, within=(0, 1), unit="seconds")


def artifact_of(check: Check, folder: Path, kind: str, config: Mapping[str, Any] | None = None) -> Artifact:
    """A folder as the record that servers are made from."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    config = dict(config or check.sizes.dense)
    meta = {"config": config, "parameters": ModelShape.of(config).parameters, "lora_rank": RANK}
    manifest = seal(folder, kind=kind)
    return Artifact("check", "", check.step, kind, folder, manifest["sha256"], size, meta=meta)


def _job(check: Check, model: Artifact) -> Job[Request]:
    """The step, as whoever proves an adapter asks for it."""
    store = Store(check.home)
    plan = Plan(stage="doctor", run="", summary="", steps=(), request={}, estimate=Estimate(seconds=0, basis=""))
    return Job(store, store.step(check.step), plan, Request(), {"base": model}, check.dir, check.vllm)
