"""The proof of an adapter on a server at work: a text of the suite scored with adapters whose effect is known.

One request at a time: vLLM's CPU kernels give a base request the adapter of its neighbour in a batch. Every adapter is
made here from the trained one, loaded for its one turn, and let go.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Request
from tunesmith.tools.evaluation.liveness import TEXT_TOKENS, Liveness, Scores, apart
from tunesmith.tools.models.probe_adapters import adapted_kinds, write_probe
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.model_server import loaded_for_a_while
from tunesmith.tools.serving.scoring import score_prompt
from tunesmith.tools.suites.case import Suite


def prove_adapter(job: Job[Request], server: servers.Server, adapter: Artifact, name: str, suite: Suite) -> Liveness:
    """What the server does with adapters like this one, called `name`. Raises StepFailed where it cannot be asked."""
    text, scratch, kinds = probe_text(server, suite), job.dir / "liveness", adapted_kinds(adapter.path)
    job.progress(0, len(kinds) + 1, "proving the adapter")
    moved: dict[str, float] = {}
    try:
        before = _scored(server, server.model, text)
        for number, kind in enumerate(kinds, 1):
            job.progress(number, len(kinds) + 1, f"proving the adapter: {kind}")
            large = write_probe(adapter.path, scratch / f"{name}-large-{number}", kind)
            with loaded_for_a_while(server, large.name, large):
                moved[kind] = apart(before, _scored(server, large.name, text))
        after = _scored(server, server.model, text)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # as large as the adapter, once for each kind
    return Liveness(tokens=len(before), base_afterwards=apart(before, after), kinds=moved)


def probe_text(server: servers.Server, suite: Suite) -> list[int]:
    """Token ids of one of the suite's conversations, as the server's own template renders it."""
    case = next((case for case in suite.cases if case.messages and not case.is_blind), suite.cases[0])
    messages = [{"role": str(m["role"]), "content": str(m.get("content") or "")} for m in case.messages]
    return servers.template_tokens(server, messages)[-TEXT_TOKENS:]


def _scored(server: servers.Server, model: str, text: Sequence[int]) -> Scores:
    return asyncio.run(score_prompt(server, model, text))
