"""The suites at work: every case asked of every arm, graded, and stored as it arrives.

Killed at case k of n, it asks exactly the n − k others when it is resumed. An answer that could not be had is an
error, never a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import EvalResult
from tunesmith.tools import serving
from tunesmith.tools.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.grading import Response, grade
from tunesmith.tools.suites import Case, Suite
from tunesmith.tools.work.job import Job

_ERRORS_ALLOWED = 0.05
"""Share of cases without an answer above which an arm says nothing and its step fails."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Who answers: the arm's name, the model name that a request asks for, and what the answers are comparable by."""

    name: str
    model: str
    key: Mapping[str, Any]
    system_prompt: str = ""

    @property
    def key_hash(self) -> str:
        """A short digest of the comparability key, stored with every answer."""
        text = "\n".join(f"{name}={self.key[name]}" for name in sorted(self.key))
        return sha256(text.encode()).hexdigest()[:16]


def run_arms(
    job: Job[Any], server: serving.Server, suite: Suite, arms: Sequence[Arm], *, max_tokens: int, concurrency: int
) -> None:
    """Ask every case of every arm that has no answer yet. Raises StepFailed where too many stay without one."""
    wanted = [(arm, case) for arm in arms for case in by_prefix(suite.cases)]
    answered = {(r.arm, r.case_id) for r in job.store.results(job.step.id) if r.passed is not None}
    todo = {
        f"{arm.name}/{case.case_id}": (arm, case) for arm, case in wanted if (arm.name, case.case_id) not in answered
    }
    requests = [_request(key, arm, case, max_tokens) for key, (arm, case) in todo.items()]
    done = len(wanted) - len(todo)
    job.progress(done, len(wanted), "asking")

    def keep(response: ChatResponse) -> None:
        nonlocal done
        arm, case = todo[response.id]
        job.store.add_result(job.run, job.step.id, result_of(arm, case, response))
        done += 1
        serving.renew(server)
        job.progress(done, len(wanted), f"{arm.name}: {case.block}")

    # One arm at a time: vLLM's own CPU kernels give a base request the adapter of its neighbour in the batch.
    for arm in arms:
        asyncio.run(_ask(server, [r for r in requests if r.id.startswith(f"{arm.name}/")], concurrency, keep))
    _refuse_errors(job, suite, arms)


def by_prefix(cases: Sequence[Case]) -> list[Case]:
    """Cases in the order in which their prompts share the longest beginnings, so that the server's cache is warm."""
    return sorted(cases, key=lambda case: [message["content"] for message in case.messages])


def _request(key: str, arm: Arm, case: Case, max_tokens: int) -> ChatRequest:
    system = [{"role": "system", "content": arm.system_prompt}] if arm.system_prompt else []
    return ChatRequest(
        id=key,
        model=arm.model,
        messages=[*system, *case.messages],
        max_tokens=max_tokens,
        temperature=0.0,
        seed=0,
        tools=list(case.tools) or None,
    )


async def _ask(server: serving.Server, requests: Sequence[ChatRequest], concurrency: int, keep: Any) -> None:
    async with ChatClient(server.url, server.key) as client:
        await client.complete_many(requests, concurrency=concurrency, on_result=keep)


def result_of(arm: Arm, case: Case, response: ChatResponse) -> EvalResult:
    """Grade one response; one that is missing or cannot be judged becomes an error."""
    judged = None
    if not response.error:
        judged = grade(
            case,
            Response(
                text=response.text,
                tool_calls=response.tool_calls,
                finish_reason=response.finish_reason,
                latency_ms=response.latency_ms,
            ),
        )
    error = response.error or (judged.error if judged else None)
    return EvalResult(
        arm=arm.name,
        block=case.block,
        case_id=case.case_id,
        key_hash=arm.key_hash,
        output=response.text,
        passed=judged.passed if judged and not error else None,
        score=judged.score if judged and not error else None,
        error=error,
        tool_calls=list(response.tool_calls),
        finish_reason=response.finish_reason or "",
        assertions=[asdict(assertion) for assertion in judged.assertions] if judged else [],
        prompt_tokens=response.prompt_tokens,
        completion_tokens=response.completion_tokens,
        latency_ms=response.latency_ms,
    )


def _refuse_errors(job: Job[Any], suite: Suite, arms: Sequence[Arm]) -> None:
    for arm in arms:
        errors = [r for r in job.store.results(job.step.id, arm.name) if r.passed is None]
        if len(errors) > _ERRORS_ALLOWED * len(suite.cases):
            raise StepFailed(
                f"{len(errors)} of {len(suite.cases)} cases of {arm.name} have no answer (bound "
                f"{_ERRORS_ALLOWED:.0%}); the first: {errors[0].error}; resume to ask those again"
            )


def block_counts(results: Sequence[EvalResult]) -> dict[str, dict[str, int]]:
    """Cases, passes and errors of each block."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        block = counts.setdefault(result.block, {"cases": 0, "passed": 0, "errors": 0})
        block["cases"] += 1
        block["passed"] += bool(result.passed)
        block["errors"] += result.passed is None
    return counts
