"""Choosing the prompted arm's prompt: every candidate on the dev split, the answers kept as they arrive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Request
from tunesmith.tools.data.answer_log import AnswerLog
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.evaluation.asking import held_to
from tunesmith.tools.evaluation.prompts import Candidate, DevRow, Tried, best, candidates, dev_rows, judge
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.requests import Tally
from tunesmith.tools.serving.thoughts import without_thought

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Chosen:
    """The prompt to hold against a fine-tune, and how it was found."""

    name: str
    preamble: list[dict[str, str]]
    tried: list[Tried]
    dev_rows: int
    schema: dict[str, JsonValue] | None = None
    """What the server holds answers to messages of the behaviour to; None: they are free."""

    @property
    def key(self) -> str:
        """What stands for it in the comparability key."""
        text = json.dumps([self.preamble, self.schema] if self.schema else self.preamble, sort_keys=True)
        return f"{self.name} (sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"

    def as_dict(self) -> dict[str, JsonValue]:
        """For the step's result and its file."""
        return {"key": self.key, **asdict(self)}


def given(system_prompt: str) -> Chosen:
    """The prompt that the user wrote; nothing else was tried."""
    return Chosen("the user's own", [{"role": "system", "content": system_prompt}], [], 0)


def choose(job: Job[Request], server: servers.Server, behaviour: Spec, rows: int, sampling: Sampling) -> Chosen:
    """Try every candidate on `rows` drawn rows and take the best. A resumed step asks only what is not answered yet."""
    options = candidates(behaviour)
    if not behaviour.seeded:  # rows of its own cannot be drawn without a model, so nothing is chosen
        return _chosen(options[0], [], 0)
    dev = dev_rows(behaviour, rows)
    answers = _ask(job, server, options, dev, sampling)
    tried = [_tally(behaviour, option, dev, answers) for option in options]
    winner = best(tried)
    return _chosen(next(option for option in options if option.name == winner.name), tried, rows)


def _chosen(option: Candidate, tried: list[Tried], rows: int) -> Chosen:
    return Chosen(option.name, list(option.preamble), tried, rows, dict(option.schema) if option.schema else None)


def _tally(behaviour: Spec, option: Candidate, dev: list[DevRow], answers: Mapping[str, ChatResponse]) -> Tried:
    own = [answers[_id(option, row)] for row in dev]
    verdicts = [judge(behaviour, row, answer.text) for row, answer in zip(dev, own, strict=True)]
    right, formed = sum(right for _, right in verdicts), sum(formed for formed, _ in verdicts)
    return Tried(option.name, len(dev), right, formed, sum(answer.prompt_tokens for answer in own))


def _id(option: Candidate, row: DevRow) -> str:
    return f"{option.name}/{row.drawn.row_id}"


def _ask(
    job: Job[Request], server: servers.Server, options: list[Candidate], dev: list[DevRow], sampling: Sampling
) -> dict[str, ChatResponse]:
    requests = [
        ChatRequest(
            id=_id(option, row),
            model=server.model,
            messages=[*map(dict, option.preamble), {"role": "user", "content": row.message}],
            max_tokens=sampling.max_tokens + sampling.thinking_tokens,
            extra={"response_format": held_to(option.schema)} if option.schema else {},
        )
        for option in options
        for row in dev
    ]
    log = AnswerLog(job, server, Tally(), "dev.jsonl", concurrency=_AT_ONCE)
    answers = log.ask(requests, "choosing the prompt")
    if lacking := [request.id for request in requests if request.id not in answers]:
        raise StepFailed(f"{len(lacking)} of {len(requests)} answers are missing, {lacking[0]} first; resume to go on")
    return {name: without_thought(a) if sampling.thinking == "on" else a for name, a in answers.items()}
