"""The proof of an adapter on a server at work: texts of the suite scored with adapters whose effect is known.

One request at a time: vLLM's CPU kernels give a base request the adapter of its neighbour in a batch. Every adapter but
the trained one is made here, loaded for its one turn, and let go. Where memory allows, base and adapter are scored by
peft too, in this process.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.rates import START
from tunesmith.tools.core.stage import GIB, Request
from tunesmith.tools.evaluation.liveness import TEXT_TOKENS, TEXTS, Liveness, Scores, apart
from tunesmith.tools.evaluation.probe_adapters import adapted_kinds, write_large, write_zero
from tunesmith.tools.machine.memory_left import memory_left_bytes
from tunesmith.tools.models.memory_math import local_scoring_bytes
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.model_server import loaded_for_a_while
from tunesmith.tools.serving.scoring import score_prompts
from tunesmith.tools.suites.case import Suite

Texts = Sequence[Sequence[int]]


def prove_adapter(
    job: Job[Request], server: servers.Server, adapter: Artifact, name: str, suite: Suite, *, with_peft: bool
) -> Liveness:
    """What the server does with the adapter, which it has loaded by `name`. Raises StepFailed where it cannot be asked.

    `with_peft`: the step was priced for a copy of the model in this process.
    """
    texts = probe_texts(server, suite)
    scratch = job.dir / "liveness"

    def scored(model: str, read: Texts = texts) -> Scores:
        return _scored(server, model, read)

    def tried(folder: Path, read: Texts = texts) -> Scores:
        with loaded_for_a_while(server, folder.name, folder):
            return scored(folder.name, read)

    kinds = adapted_kinds(adapter.path)
    job.progress(0, len(kinds) + 1, "proving the adapter")
    try:
        before = scored(server.model)
        zero = tried(write_zero(adapter.path, scratch / f"{name}-zero"))
        moved: dict[str, float] = {}
        for number, kind in enumerate(kinds, 1):
            job.progress(number, len(kinds) + 1, f"proving the adapter: {kind}")
            large = tried(write_large(adapter.path, scratch / f"{name}-large-{number}", kind), texts[:1])
            moved[kind] = apart(before[: len(large)], large)
        own = scored(name)
        after = scored(server.model)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    proof = Liveness(
        tokens=len(before),
        zero_adapter=apart(before, zero),
        base_afterwards=apart(before, after),
        kinds=moved,
        adapter=apart(before, own),
    )
    return proof.model_copy(update=_against_peft(job, adapter, texts, before, own, with_peft=with_peft))


def probe_texts(server: servers.Server, suite: Suite) -> list[list[int]]:
    """Token ids of a few of the suite's conversations, spread over it, as the server's own template renders them."""
    cases = [case for case in suite.cases if case.messages and not case.is_blind] or list(suite.cases)
    chosen = cases[:: max(1, len(cases) // TEXTS)][:TEXTS]
    rendered = (
        servers.template_tokens(
            server, [{"role": str(m["role"]), "content": str(m.get("content") or "")} for m in case.messages]
        )
        for case in chosen
    )
    return [tokens[-TEXT_TOKENS:] for tokens in rendered]


def _scored(server: servers.Server, model: str, texts: Texts) -> Scores:
    servers.renew(server)
    found = asyncio.run(score_prompts(server, model, [(text, 0) for text in texts], concurrency=1))
    return [token.logprob for text in found for token in text if token is not None]


def _against_peft(
    job: Job[Request], adapter: Artifact, texts: Texts, base: Scores, own: Scores, *, with_peft: bool
) -> Mapping[str, object]:
    """How far the server is from peft with the same weights, or why that is not known."""
    model = job.inputs["base"]
    needed = local_scoring_bytes(int(model.meta["parameters"]))
    copy = f"a copy of the model here takes {needed / GIB:.1f} GiB"
    if not with_peft:
        return {"peft_left_out": f"peft_check is off ({copy})"}
    if needed > (left := memory_left_bytes()):
        return {"peft_left_out": f"{copy}, {left / GIB:.1f} GiB are left"}
    from tunesmith.tools.evaluation.local_model import LocalModel

    job.progress(0, 0, "holding the adapter against peft", kind=START)
    local = LocalModel(job.inputs, adapter.path, job.dir / "unpacked", on_cpu=True)
    try:
        return {
            "base_against_peft": apart(base, local.scores(texts, with_adapter=False)),
            "against_peft": apart(own, local.scores(texts, with_adapter=True)),
        }
    finally:
        local.close()
