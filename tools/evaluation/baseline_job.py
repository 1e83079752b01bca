"""baseline at work: fix the suite, serve the base, ask it everything, keep every answer, then have it judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import Artifact, EvalResult
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stats import MAX_ERROR_SHARE
from tunesmith.tools.evaluation.advice import baseline_advice
from tunesmith.tools.evaluation.asking import Arm, AskRecord, ask_once, refuses_adapters, run_arms, server_answers
from tunesmith.tools.evaluation.baseline import (
    BaselineRequest,
    BaselineResult,
    BlockResult,
    requested_settings,
    suites_of,
)
from tunesmith.tools.evaluation.blind import META, blind_ids
from tunesmith.tools.evaluation.comparison import CaseOutcome
from tunesmith.tools.evaluation.judge_job import agreed_models, judge_waiting
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.evaluation.statistics import case_outcomes
from tunesmith.tools.evaluation.unread import suite_warnings
from tunesmith.tools.models.chat_template import takes_tools
from tunesmith.tools.models.measuring import QUANTIZED_BASE, answering_base
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.context_settings import ContextSettings
from tunesmith.tools.serving.model_server import key_of, measuring_server
from tunesmith.tools.serving.thoughts import CUT_OFF
from tunesmith.tools.suites.case import Suite
from tunesmith.tools.suites.loading import load_named_suites, read_suite


def run(job: Job[BaselineRequest]) -> BaselineResult:
    """Ask the base every case of the suites that were agreed to; a resumed baseline keeps those it started with."""
    request, base = job.request, job.verified("base")
    if QUANTIZED_BASE in job.inputs:
        job.verified(QUANTIZED_BASE)
    suite_file = job.dir / "suite.json"
    suite = _agreed_suite(job, suite_file)
    agreed_models(job, suite, request.judge)
    asked = ask_once(job, lambda: _ask(job, suite))
    key = {**asked.keys["base"], **judge_waiting(job, suite, judge=request.judge, fresh=request.fresh)}
    meta = {
        "suite_sha256": suite.sha256,
        "cases": len(suite.cases),
        **requested_settings(request).recorded,
        META: blind_ids(suite.cases),
    }
    artifact = job.publish("suite", suite_file, meta=meta)
    results = job.store.results(job.step.id, "base")
    blocks = _block_results(case_outcomes(results).values())
    advice = (_cut_off(request, results), baseline_advice(blocks), *suite_warnings(suite.cases))
    return BaselineResult(
        artifact=artifact.id,
        suite_sha256=suite.sha256,
        blocks=blocks,
        key=key,
        advice="; ".join(filter(None, advice)),
        takes_tools=takes_tools(base.path) or not any(case.tools for case in suite.cases),
        taken_over=asked.taken_over,
    )


def _agreed_suite(job: Job[BaselineRequest], file: Path) -> Suite:
    """The suite of the approved plan: from the files that the request names, or as the step kept it when it began."""
    begun = file.exists()
    if begun:
        suite = read_suite(file)
    else:
        dataset = job.verified("dataset").path if job.request.held_out else None
        suite = load_named_suites(suites_of(job.request, dataset), job.request.cases_per_block)
    job.agreed("suite", suite.sha256)
    if not begun:
        atomic_write(file, suite.to_json())
    return suite


def _block_results(outcomes: Iterable[CaseOutcome]) -> dict[str, BlockResult]:
    by_block: dict[str, list[CaseOutcome]] = {}
    for outcome in outcomes:
        by_block.setdefault(outcome.block, []).append(outcome)
    return {
        block: BlockResult(
            cases=len(cases),
            passed=sum(case.passed is True for case in cases),
            errors=sum(case.passed is None for case in cases),
        )
        for block, cases in by_block.items()
    }


def _cut_off(request: BaselineRequest, results: Sequence[EvalResult]) -> str:
    """What speaks against the figures where many answers of a block never came; empty where few did not."""
    asked = Counter(str(result.block) for result in results)
    cut = Counter(str(result.block) for result in results if (result.error or "").startswith(CUT_OFF))
    many = {block: count for block, count in cut.items() if count > MAX_ERROR_SHARE * asked[block]}
    if not many:
        return ""
    counts = ", ".join(f"{count} of {asked[block]} {block}" for block, count in many.items())
    return (
        f"{counts} answers are cut off in their thoughts (thinking_tokens={request.thinking_tokens}): they count as "
        "errors, not as failures, so nothing is known of these cases; run the baseline again with "
        f"thinking_tokens={2 * request.thinking_tokens}, or with thinking=off where the template can leave thoughts out"
    )


def _ask(job: Job[BaselineRequest], suite: Suite) -> AskRecord:
    """Every answer, stored; the comparability key that they were given under."""
    request, measured = job.request, answering_base(job.inputs)
    context_settings = requested_settings(request)
    sampling = Sampling.on(context_settings, request.max_tokens, request.temperature, request.repeats)
    with _server(job, measured, context_settings) as server:
        key = {**key_of(server, measured, suite), **sampling.key}
        answer = server_answers(server, sampling, request.concurrency)
        arm = Arm("base", server.model, key)
        taken_over = run_arms(job, suite, [arm], sampling, answer, fresh=request.fresh)
        return AskRecord(keys={"base": dict(key)}, taken_over=taken_over)


@contextmanager
def _server(job: Job[BaselineRequest], base: Artifact, context_settings: ContextSettings) -> Iterator[servers.Server]:
    """A server that allows adapters, as later comparisons want it; one without where vLLM takes none for this base."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(
                measuring_server(job, base, adapters_allowed=True, context_settings=context_settings)
            )
        except StepFailed as error:
            if not refuses_adapters(error):
                raise
            job.log(f"vLLM takes no adapters for this base, so its server allows none: {error}")
            server = stack.enter_context(measuring_server(job, base, context_settings=context_settings))
        yield server
