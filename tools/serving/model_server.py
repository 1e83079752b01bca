"""Models behind a vLLM server, for the stages that ask them: one way to start, adopt, key and let go of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.rates import START
from tunesmith.tools.core.stage import Request
from tunesmith.tools.machine.vllm_program import vllm_of_worker
from tunesmith.tools.models.chat_template import template_sha256, tool_parser_of
from tunesmith.tools.models.measuring import QUANTIZED_BASE, adapted_modules
from tunesmith.tools.models.memory_math import cpu_cache_gib, kv_bytes_per_token
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import placed, serving_memory
from tunesmith.tools.serving.context_settings import USUAL, ContextSettings, context_settings_at_work
from tunesmith.tools.serving.listeners import SendRefused
from tunesmith.tools.serving.local_http import call
from tunesmith.tools.serving.spec import ServerSpec, engine_arguments, lora_of, precision_of
from tunesmith.tools.suites.case import Suite

_WRITER, _WRITER_BLOCK_TOKENS = "teacher", 32
"""A writer's requests begin alike and end after few tokens of their own: with blocks of 128 half of each was read anew.
What arms are measured by keeps vLLM's blocks, and its answers with them."""


def measuring_spec(
    model: Artifact,
    *,
    vllm: str | None = None,
    adapters_allowed: bool = False,
    rank: int = 16,  # vLLM's own, so that a server without adapters is the same one
    context_settings: ContextSettings = USUAL,
) -> ServerSpec:
    """How a model is served for measuring by a vllm program: the same settings for every arm of a run.

    A base is always served with adapters allowed, so that its baseline, the preflight and the comparison with an
    adapter all run on the very same engine settings.
    """
    allowed, config = rank if adapters_allowed else 0, model.known_config
    tokens = context_settings.context_tokens
    place = placed(vllm, serving_memory(model, tokens, rank=allowed, cards=context_settings.cards))
    quantized = model.kind == QUANTIZED_BASE
    return ServerSpec(
        model_dir=str(model.path),
        served_name=served_name(model),
        weights_sha256=model.sha256,
        tool_parser=tool_parser_of(model.path),
        max_lora_rank=allowed,
        lora_modules=adapted_modules(config, quantized_base=quantized) if allowed and quantized else (),
        max_model_len_tokens=tokens,
        kv_cache_gib=cpu_cache_gib(tokens * kv_bytes_per_token(config)),
        cache_block_tokens=_WRITER_BLOCK_TOKENS if model.kind == _WRITER else 0,  # 0: vLLM's own
        **place._asdict(),
        without_thoughts=context_settings.thinking == "off",
    )


def served_name(model: Artifact) -> str:
    """The name that requests ask for: what the artifact is, and which."""
    return f"{model.kind}-{model.id}"


@contextmanager
def measuring_server(
    job: Job[Request],
    model: Artifact,
    *,
    adapters_allowed: bool = False,
    rank: int = 16,  # what vLLM allows unless told, so that a server that needs no more is the same one
    adapters: Mapping[str, Path] | None = None,
    context_settings: ContextSettings | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Iterator[servers.Server]:
    """A healthy server of `model` with `adapters` loaded, adopted where an equal one runs, started where not.

    It takes conversations as `context_settings` says; None: as the run does. It is split over the cards of the step's
    plan. While it starts, `meanwhile` is done once: such as importing what comes after the answers.

    It is left running under a short lease when the step is done, for the next step may want the same one; nothing
    outlives the lease. Its memory counts as the step's.
    """
    vllm = vllm_of_worker(job.vllm)
    settings = replace(context_settings or context_settings_at_work(job), cards=job.plan.estimate.cards)
    spec = measuring_spec(model, vllm=vllm, adapters_allowed=adapters_allowed, rank=rank, context_settings=settings)
    server = serve(job, spec, vllm=vllm, log="vllm.log", note="vLLM is starting", meanwhile=meanwhile)
    for name, folder in (adapters or {}).items():
        servers.load_adapter(server, name, folder)
    with servers.lease(server):
        yield server


@contextmanager
def loaded_for_a_while(server: servers.Server, name: str, folder: Path) -> Iterator[None]:
    """An adapter on a running server, let go afterwards. Raises StepFailed where it is refused."""
    servers.load_adapter(server, name, folder)
    try:
        yield
    finally:
        with suppress(OSError, SendRefused):  # a server that ended has let go of it too
            body = {"lora_name": name}
            # 60 s: it waits behind what the server is answering.
            call(
                server.listener, "/v1/unload_lora_adapter", server.key, body, timeout_s=60, loader_key=server.loader_key
            )


def serve(
    job: Job[Request], spec: ServerSpec, *, vllm: str, log: str, note: str, meanwhile: Callable[[], None] | None = None
) -> servers.Server:
    """A healthy server of a description for a step, whose memory counts as the step's; while it starts, `note` is said
    and `meanwhile` is done once."""
    waiting = iter([meanwhile] if meanwhile else [])

    def on_wait(seconds: float) -> None:
        job.progress(0, 0, f"{note} ({seconds:.0f} s)", kind=START)
        if at_once := next(waiting, None):
            at_once()

    server = servers.ensure(job.home, spec, vllm=vllm, log_path=job.dir / log, owner=job.step.id, on_wait=on_wait)
    job.watched.append(server.pid)
    return server


def key_of(server: servers.Server, model: Artifact, suite: Suite) -> dict[str, JsonValue]:
    """The comparability key of answers by `model` on `server`: all that changes them, adapter and sampling left open.

    A quantized base is its base at another precision: the weights are the base's, and it shows in the precision.
    """
    spec = server.spec
    shared = spec.model_copy(update={"max_lora_rank": 0})
    return {
        "engine": server.engine,
        "engine_arguments": " ".join(engine_arguments(shared)),
        "device": spec.device,
        "lora": lora_of(spec),
        "weights": weights_of(model),
        "precision": precision_label(model),
        "template": template_sha256(Path(spec.model_dir)),
        "adapter": "none",
        "suite": suite.sha256,
    }


def weights_of(model: Artifact) -> str:
    """The sha256 of the weights that answer: a quantized base is its base at another precision."""
    return str(model.meta["base_sha256"]) if model.kind == QUANTIZED_BASE else model.sha256


def precision_label(model: Artifact) -> str:
    """How a model's weights are stored, for a comparability key; which quantized base, where it is one."""
    base = f", quantized base {model.sha256[:12]}" if model.kind == QUANTIZED_BASE else ""
    return f"{precision_of(model.path)}{base}"
