"""The suites at work: every case asked of every arm, graded, and stored as it arrives.

Killed at case k of n, it asks exactly the n − k others when it is resumed; where the engine or another part of the key
is no longer what it was, the k as well, for no step holds answers under two keys. What an earlier step of the run asked
in the very same words under the very same key is not asked again: its stored answer is graded anew. An answer that
could not be had is an error, never a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from pydantic import BaseModel, JsonValue

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Request
from tunesmith.tools.core.stats import MAX_ERROR_SHARE
from tunesmith.tools.evaluation.protocol import BLIND_OPENED, CASE_DIGITS, Key, Sampling, measured
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse, response_format_of
from tunesmith.tools.serving.requests import chat_client
from tunesmith.tools.serving.thoughts import CUT_OFF, without_thought
from tunesmith.tools.suites.case import LISTED_BLOCKS, PRIMARY_BLOCK, Case, Suite
from tunesmith.tools.suites.grading import PENDING, grade_deterministic

_STORE_EVERY_S = 0.02
"""Answers that arrive within so short a time share one commit to the disk."""
_BEHAVIOUR_BLOCKS = (PRIMARY_BLOCK, *LISTED_BLOCKS)
_NOT_THE_QUESTION = frozenset({"suite", "repeats"})
"""Parts of the comparability key that do not change the answer to one case."""
_HAS_ANSWER = f"""(passed IS NOT NULL OR assertions LIKE '%"reason": "{PENDING}"%')"""
"""Of a stored result: the arm answered, whether or not a judge decided since."""


@dataclass(frozen=True)
class Arm:
    """Who answers: the arm's name, the model name that a request asks for, and what the answers are comparable by."""

    name: str
    model: str
    key: Key
    preamble: Sequence[Mapping[str, object]] = ()
    """What stands before every conversation: a system prompt, and examples as turns."""
    schema: Mapping[str, object] | None = None
    """JSON Schema that the server holds answers to messages of the behaviour's kind to; others are free."""

    @cached_property
    def asked_under(self) -> str:
        """The comparability key without the rest of the suite, as text."""
        key = {name: value for name, value in self.key.items() if name not in _NOT_THE_QUESTION}
        return json.dumps(key, sort_keys=True, default=str)

    def messages(self, case: Case) -> list[dict[str, object]]:
        """The conversation that this arm is asked; two system prompts become one."""
        before, asked = [dict(message) for message in self.preamble], [dict(message) for message in case.messages]
        if before and asked and before[0]["role"] == asked[0]["role"] == "system":
            before[0]["content"] = f"{before[0]['content']}\n\n{asked.pop(0)['content']}"
        return [*before, *asked]


@dataclass(frozen=True, slots=True)
class Question:
    """One case for one arm, once."""

    arm: Arm
    case: Case
    repeat: int = 0

    @property
    def id(self) -> str:
        """Names it among the questions of a step."""
        return f"{self.arm.name}/{self.case.case_id}/{self.repeat}"

    @property
    def key_hash(self) -> str:
        """Digest of all that decides the answer: the arm's key without the rest of the suite, and what is asked."""
        return sha256(f"{self.arm.asked_under}\n{self.case.request_sha256}".encode()).hexdigest()[:16]

    def request(self, sampling: Sampling) -> ChatRequest:
        """What a server is asked; what the suite's provider says of sampling goes before the step's own."""
        case = self.case
        own = {
            name: value for name, value in case.sampling.items() if name not in ("max_tokens", "temperature", "seed")
        }
        if case.tools and case.tool_choice is not None:
            own["tool_choice"] = case.tool_choice
        if self.arm.schema and self.case.block in _BEHAVIOUR_BLOCKS:  # who wants JSON asks for it there alone
            own["response_format"] = response_format_of(self.arm.schema)
        return ChatRequest(
            id=self.id,
            model=self.arm.model,
            messages=self.arm.messages(case),
            max_tokens=int(case.sampled("max_tokens", sampling.max_tokens)) + sampling.thinking_tokens,
            temperature=float(case.sampled("temperature", sampling.temperature)),
            seed=int(case.sampled("seed", 0)) + self.repeat,
            tools=list(case.tools) or None,
            extra=own,
        )


Keep = Callable[[Question, ChatResponse], None]
Answerer = Callable[[Sequence[Question], Keep], None]
"""Puts the questions of one arm to whoever answers them, and hands over each answer as it arrives."""


def run_arms(
    job: Job[Request], suite: Suite, arms: Sequence[Arm], sampling: Sampling, answer: Answerer, *, fresh: bool = False
) -> int:
    """Ask every case of every arm that has no answer yet; returns how many answers earlier steps already had.

    Grades what needs no model; `judging.judge_waiting` decides the rest. Raises StepFailed where too many stay without
    an answer. `fresh` takes nothing over from earlier steps.
    """
    cases = by_prefix(suite.cases)
    wanted = [
        Question(arm, case, repeat)
        for arm in arms
        for case in cases
        if case.asked_of(arm.name)
        for repeat in range(max(case.repeat, sampling.repeats))
    ]
    answered = _answered(job.store, job.step.id)
    todo = [question for question in wanted if answered.get(question.id) != question.key_hash]
    if outdated := sum(question.id in answered for question in todo):
        job.log(f"answers of an earlier attempt under another engine or other settings: {outdated}; asking these again")
    record = _Record(job, done=len(wanted) - len(todo), total=len(wanted))
    known = {} if fresh else _known(job)
    before = record.done
    todo = [question for question in todo if not record.take_over(question, known)]
    taken_over = record.done - before
    if blind := [question for question in todo if question.case.is_blind]:
        note_blind_opening(job, suite, blind)

    def keep(question: Question, response: ChatResponse) -> None:
        record.keep(question, without_thought(response) if sampling.thinking == "on" else response)

    # One arm at a time: vLLM's own CPU kernels give a base request the adapter of its neighbour in the batch.
    for arm in arms:
        answer([question for question in todo if question.arm is arm], keep)
        record.flush()
    refuse_errors(job, "answer")
    return taken_over


class AskRecord(BaseModel, frozen=True):
    """What is left to know of a step once every question was put: the answers themselves are in the store."""

    keys: dict[str, dict[str, JsonValue]]
    """Arm → the comparability key that it answered under."""
    taken_over: int
    """Answers that earlier steps already had."""
    prompt: dict[str, JsonValue] = {}
    proof: dict[str, JsonValue] = {}


def note_blind_opening(job: Job[Request], suite: Suite, questions: Sequence[Question]) -> None:
    """Record, for every arm, that it is asked blind cases: a claim says how often they were opened before it."""
    for arm in {question.arm.name: question.arm for question in questions}.values():
        asked = [question.case for question in questions if question.arm is arm]
        job.store.event(
            BLIND_OPENED,
            run=job.run,
            step=job.step.id,
            arm=arm.name,
            model=measured(arm.name, arm.key),
            cases=len(asked),
            suite=suite.sha256,
            blind=sorted({case.request_sha256[:CASE_DIGITS] for case in asked if case.block == PRIMARY_BLOCK}),
        )


def ask_once(job: Job[Request], ask: Callable[[], AskRecord]) -> AskRecord:
    """What `ask` returns; a step that was killed after it had asked everything does not start a server again."""
    record = job.dir / "asked.json"
    with contextlib.suppress(FileNotFoundError):
        return AskRecord.model_validate_json(record.read_text())
    asked = ask()
    job.write_json(record.name, asked.model_dump(mode="json"))
    return asked


def by_prefix(cases: Sequence[Case]) -> list[Case]:
    """Cases in the order in which their prompts share the longest beginnings, so that the server's cache is warm."""
    return sorted(cases, key=lambda case: [str(message.get("content", "")) for message in case.messages])


def server_answers(server: servers.Server, sampling: Sampling, concurrency: int) -> Answerer:
    """Questions are put to a server, as many at once as its queue takes."""

    def answer(questions: Sequence[Question], keep: Keep) -> None:
        asked = {question.id: question for question in questions}

        def arrived(response: ChatResponse) -> None:
            keep(asked[response.id], response)

        requests = (question.request(sampling) for question in questions)
        if questions:
            chat_client(server).complete_all(requests, concurrency=concurrency, on_result=arrived)

    return answer


def refuses_adapters(error: StepFailed) -> bool:
    """Whether a server failed because of LoRA adapters, at its start or when one was to be loaded."""
    return "lora" in str(error).lower() or "refused the adapter" in str(error)


class _Record:
    """Answers on their way into the store: graded at once, written within 20 ms, many to a commit.

    A thread writes: a commit waits for the disk, and nobody who asks should wait with it.
    """

    def __init__(self, job: Job[Request], done: int, total: int) -> None:
        self.job, self.done, self.total = job, done, total
        self._pending: list[EvalResult] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        job.progress(done, total, "asking")

    def keep(self, question: Question, response: ChatResponse) -> None:
        """Grade an answer and have it stored. Raises what kept an earlier one from being stored."""
        if self._writing and self._writing.done():
            self._writing.result()
        self._add(question, result_of(question, response))

    def take_over(self, question: Question, known: Mapping[tuple[str, str, int], int]) -> bool:
        """Grade what an earlier step was answered to the same question; False where there is nothing to grade."""
        row = known.get((question.arm.name, question.key_hash, question.repeat)) if known else None
        if row is None:
            return False
        result = result_of(question, _stored(self.job.store, question.id, row))
        if result.error:  # it had a grade then, and has none by the suite of now: it is asked anew
            return False
        self._add(question, result)
        return True

    def _add(self, question: Question, result: EvalResult) -> None:
        self._pending.append(result)
        self.done += 1
        self.job.progress(self.done, self.total, f"{question.arm.name}: {question.case.block}")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs: a model in this process answers, one batch after the other
            self.flush()
        else:
            self._timer = self._timer or loop.call_later(_STORE_EVERY_S, self._hand_over)

    def _hand_over(self) -> None:
        """Give what arrived to the thread that writes; a fault of it is raised by the next answer, or at the end."""
        self._timer = None
        if self._writing and not self._writing.done():
            self._timer = asyncio.get_running_loop().call_later(_STORE_EVERY_S, self._hand_over)
        elif self._pending and not (self._writing and self._writing.exception()):
            self._writing = self._thread.submit(self._write, self._pending)
            self._pending = []

    def _write(self, results: Sequence[EvalResult]) -> None:
        self.job.store.add_results(self.job.run, self.job.step.id, results, replaces_other_keys=True)

    def flush(self) -> None:
        """Everything that arrived is on the disk afterwards."""
        self._timer = None
        if self._writing:
            self._writing.result()
        if self._pending:
            self._write(self._pending)
            self._pending = []


def _answered(store: Store, step: str) -> dict[str, str]:
    """Id of each question that a step has an answer to → the digest of what was asked."""
    sql = (
        "SELECT arm || '/' || case_id || '/' || repeat AS id, key_hash FROM eval_results"
        f" WHERE step = ? AND {_HAS_ANSWER}"
    )
    return {row["id"]: row["key_hash"] for row in store.read(sql, step)}


def _known(job: Job[Request]) -> dict[tuple[str, str, int], int]:
    """(arm, digest of the question, repeat) → row, of earlier steps that asked for the same arm in this run."""
    rows = job.store.read(
        "SELECT e.id, e.arm, e.key_hash, e.repeat FROM eval_results e JOIN steps s ON s.step = e.step"
        " WHERE e.run = ? AND s.stage = ? AND s.arm = ? AND e.step <> ? AND e.passed IS NOT NULL ORDER BY e.id",
        job.run,
        job.step.stage,
        job.step.arm,
        job.step.id,
    )
    return {(row["arm"], row["key_hash"], row["repeat"]): row["id"] for row in rows}


def _stored(store: Store, identity: str, row_id: int) -> ChatResponse:
    row = store.read("SELECT * FROM eval_results WHERE id = ?", row_id)[0]
    return ChatResponse(
        id=identity,
        text=row["output"],
        tool_calls=json.loads(row["tool_calls"]),
        finish_reason=row["finish_reason"] or None,
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        latency_ms=row["latency_ms"],
    )


def result_of(question: Question, response: ChatResponse) -> EvalResult:
    """Grade one response; one that is missing or cannot be judged becomes an error.

    Where an assertion asks a model there is neither a verdict nor an error yet.
    """
    case = question.case
    judged = None if response.error else grade_deterministic(case, response)
    error = response.error or (judged.error if judged else None)
    decided = judged is not None and not error and all(a.reason != PENDING for a in judged.assertions)
    return EvalResult(
        arm=question.arm.name,
        block=case.block,
        case_id=case.case_id,
        key_hash=question.key_hash,
        output=response.text,
        passed=judged.passed if judged and decided else None,
        score=judged.score if judged and decided else None,
        repeat=question.repeat,
        error=error,
        tool_calls=[dict(call) for call in response.tool_calls],
        finish_reason=response.finish_reason or "",
        assertions=list(judged.assertions) if judged and not error else [],
        prompt_tokens=response.prompt_tokens,
        completion_tokens=response.completion_tokens,
        latency_ms=response.latency_ms or 0.0,
    )


def refuse_errors(job: Job[Request], lacking: str) -> None:
    """Raise StepFailed where too many results of an arm are errors, for want of an "answer" or a "verdict".

    One that is cut off in its thoughts does not count here: asked again it would be cut off again.
    """
    rows = job.store.read(
        "SELECT arm, count(error) AS errors, count(*) AS asked, max(error) AS error FROM"
        " (SELECT arm, CASE WHEN error NOT LIKE ? THEN error END AS error FROM eval_results WHERE step = ?)"
        " GROUP BY arm",
        f"{CUT_OFF}%",
        job.step.id,
    )
    for row in rows:
        if row["errors"] > MAX_ERROR_SHARE * row["asked"]:
            raise StepFailed(
                f"{row['errors']} of {row['asked']} cases of {row['arm']} have no {lacking} "
                f"(bound {MAX_ERROR_SHARE:.0%}); one of them: {row['error']}; resume to ask those again"
            )
