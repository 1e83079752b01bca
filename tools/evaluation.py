"""What the evaluating stages share: the suite of a run, its price, and comparisons from stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import DONE, Artifact, EvalResult, Step
from tunesmith.memory.store import Store
from tunesmith.tools.compare import LISTED_BLOCKS, compare_arms, differences
from tunesmith.tools.grading import AssertionResult, Grade, Response, asks_model, grade, total
from tunesmith.tools.local_paths import local_path
from tunesmith.tools.serving_spec import no_vllm
from tunesmith.tools.stage import ARMS, GIB, Facts
from tunesmith.tools.suites import BUNDLED, Case, Suite, load_suites

_DEMO = "demo"
SuiteName = Annotated[str, local_path(_DEMO, *BUNDLED)]
"""A suite in a request: a file, or a short name."""
_CLUSTER = "seed_row"
"""Entry of a case's metadata: the row that it was made from, where several cases were made from one."""
_SERVER_START_S = 30.0
# Tokens per second of a 1e9-parameter model on the reference machine, many requests at once.
_TOKENS_PER_SECOND_BILLION = 55.0
_USUAL_SHARE_OF_MAX_TOKENS = 0.6

# Which parts of the comparability key a pair of arms may differ in: the hop that is under test.
HOPS: Mapping[str, frozenset[str]] = {
    "prompted": frozenset({"system_prompt"}),
    "adapter": frozenset({"adapter"}),
    "merged": frozenset({"adapter", "weights", "lora"}),
    "quantized": frozenset({"adapter", "weights", "lora", "precision"}),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How every answer is drawn; what a suite's provider says goes before it, case by case."""

    max_tokens: int
    temperature: float = 0.0
    repeats: int = 1

    @property
    def key(self) -> dict[str, Any]:
        """Its part of the comparability key."""
        repeats = {"repeats": self.repeats} if self.repeats > 1 else {}
        return {"sampling": f"temperature={self.temperature:g} seed=0 max_tokens={self.max_tokens}", **repeats}


def need_vllm(facts: Facts) -> str:
    """The vllm program. Raises BadInput where none was found."""
    if not facts.vllm:
        raise BadInput(no_vllm(facts.vllm_from))
    return facts.vllm


def demo_suites() -> list[Path]:
    """The bundled suites: target, general, tools, adversarial; those that are there."""
    folder = Path(str(files("tunesmith.prompts"))) / "demo" / "suites"
    paths = [folder / f"{block}.yaml" for block in ("target", "general", "tools", "adversarial")]
    return [path for path in paths if path.is_file()]


def load_named_suites(names: Sequence[str], cases_per_block: int = 0) -> Suite:
    """Parse suites by file name, 'demo' standing for the bundled ones; at most so many cases of each block.

    Assertions that ask a model are read: whether somebody answers for it, `judging.find_models` says.
    """
    paths = [path for name in names for path in (demo_suites() if name == _DEMO else [Path(name).expanduser()])]
    return thin(load_suites(paths, models=("judge", "embedder")), cases_per_block)


def thin(suite: Suite, cases_per_block: int) -> Suite:
    """At most `cases_per_block` cases of each block, evenly spaced over it so that its kinds stay mixed; 0: all.

    A thinned suite has no adversarial block beside others: it gates nothing, so it is the first to go.
    """
    if not cases_per_block:
        return suite
    kept = []
    blocks = list(dict.fromkeys(case.block for case in suite.cases))
    for block in [name for name in blocks if name not in LISTED_BLOCKS] or blocks:
        cases = [case for case in suite.cases if case.block == block]
        count = min(cases_per_block, len(cases))
        kept += [cases[index * len(cases) // count] for index in range(count)]
    return suite.with_cases(kept)


def read_suite(path: Path) -> Suite:
    """The suite that a baseline fixed, as it was parsed then."""
    return Suite.from_json(path.read_text())


def evaluation_seconds(model: Artifact, cases: int, max_tokens: int, arms: int = 1) -> float:
    """Calibrated seconds to start a server and answer every case with every arm."""
    billions = max(int(model.meta["parameters"]) / 1e9, 0.01)
    tokens = cases * arms * max_tokens * _USUAL_SHARE_OF_MAX_TOKENS
    return _SERVER_START_S + model.bytes / 4e8 + tokens * billions / _TOKENS_PER_SECOND_BILLION


def serving_memory(model: Artifact) -> int:
    """Peak bytes of a vLLM server: the weights once more while they load, its process tree, and the KV cache."""
    return int(model.bytes * 1.3) + int(2.2 * GIB) + GIB


Keys = Mapping[str, Mapping[str, Any]]
"""Arm → the comparability key that its answers were made under."""


def compare_run(
    store: Store, run: str, a: str, b: str, *, unfinished: tuple[str, Keys] | None = None
) -> dict[str, Any]:
    """Arms `a` and `b` of a run from stored results, in the JSON shape of `tunesmith compare`. Raises NotFound.

    Taken from one step where one holds both (one server, nothing else changed), else from the newest pair that may
    be compared, else from each arm's newest. `unfinished` is an evaluating step that is still at work, with its keys.
    """
    for arm in (a, b):
        if arm not in ARMS:
            raise BadInput(f"no arm {arm!r}; the arms are {', '.join(ARMS)}")
    evaluations = [(step.id, keys_of(step)) for step in store.steps(run, status=DONE) if keys_of(step)]
    evaluations += [unfinished] if unfinished else []
    allowed = HOPS.get(a, frozenset()) | HOPS.get(b, frozenset())
    step_a, step_b = _steps_of(evaluations, run, a, b, allowed)
    keys = {a: dict(dict(evaluations)[step_a][a]), b: dict(dict(evaluations)[step_b][b])}
    cases = _cases(store, run, keys[a].get("suite"))
    together = {a: tuple(dict(evaluations)[step_a]), b: tuple(dict(evaluations)[step_b])}
    left_out = {name for name, case in cases.items() if not _asked_of_both(case, together, step_a == step_b)}
    records_a, records_b = (
        [_record(r, cases.get(r.case_id)) for r in store.results(s, arm) if r.case_id not in left_out]
        for s, arm in ((step_a, a), (step_b, b))
    )
    compared = compare_arms(records_a, records_b, arms=(a, b), keys=keys, allowed=allowed)
    return {"run": run, "steps": {a: step_a, b: step_b}, **compared}


def _steps_of(
    evaluations: Sequence[tuple[str, Keys]], run: str, a: str, b: str, allowed: frozenset[str]
) -> tuple[str, str]:
    holding = {arm: [step for step, keys in evaluations if arm in keys] for arm in (a, b)}
    for arm, steps in holding.items():
        if not steps:
            raise NotFound(f"run {run} has no finished evaluation of the arm {arm!r}; `tunesmith evaluate` makes one")
    if shared := [step for step in holding[a] if step in holding[b]]:
        return shared[-1], shared[-1]
    keys = dict(evaluations)
    pairs = [(s, t) for t in reversed(holding[b]) for s in reversed(holding[a])]
    return next((pair for pair in pairs if not differences(keys[pair[0]][a], keys[pair[1]][b], allowed)), pairs[0])


def keys_of(step: Step) -> Keys:
    """Comparability keys by arm of a finished baseline or evaluation; empty for any other step."""
    result = step.result or {}
    if step.stage == "baseline":
        return {"base": result["key"]}
    keys: Keys = result["keys"] if step.stage == "evaluate" else {}
    return keys


def _cases(store: Store, run: str, suite_sha256: Any) -> dict[str, Case]:
    """The cases of the suite that a comparison was run on; none where that is gone, or not the run's newest."""
    artifacts = [a for a in store.artifacts(run, "suite") if a.meta.get("suite_sha256") == suite_sha256]
    try:
        return {case.case_id: case for case in read_suite(artifacts[-1].path).cases} if artifacts else {}
    except (OSError, BadInput):
        return {}


def _asked_of_both(case: Case, together: Mapping[str, Sequence[str]], one_step: bool) -> bool:
    """Whether a case tells two arms apart: asked of both, and not graded against different rivals."""
    return all(case.asked_of(arm, arms) for arm, arms in together.items()) and (one_step or not case.needs_rivals)


def _record(result: EvalResult, case: Case | None) -> dict[str, Any]:
    record = {name: getattr(result, name) for name in ("case_id", "block", "passed", "score", "error", "repeat")}
    if case and case.metadata.get(_CLUSTER) is not None:
        record["cluster"] = str(case.metadata[_CLUSTER])
    if case and result.passed is not None and names_metrics(case):
        record["metrics"] = dict(_graded(case, result).named_scores)
    return record


def _graded(case: Case, result: EvalResult) -> Grade:
    """The grade of a stored answer; what a model decided is taken as it is stored."""
    if asks_model(case.assertions):
        return total(case, [AssertionResult(**stored) for stored in result.assertions])
    return grade(case, Response(result.output, result.tool_calls, result.finish_reason, result.latency_ms))


def names_metrics(case: Case) -> bool:
    """Whether the case's assertions give scores to metrics of their own."""
    return any(a.metric for assertion in case.assertions for a in (assertion, *assertion.children))


def broken_hops(store: Store, run: str, arm: str) -> list[str]:
    """Why `arm` must not be deployed: not evaluated, not better on the target, or worse elsewhere; empty: it may.

    The adversarial block is listed, and gates nothing.
    """
    try:
        compared = compare_run(store, run, "base", arm)
    except NotFound as error:
        return [str(error)]
    if not compared["comparable"]:
        return [str(compared["refused"])]
    found = []
    for block, counts in compared["blocks"].items():
        if block in LISTED_BLOCKS:
            continue
        wanted = ("better",) if block == "target" else ("better", "not worse", "no decision")
        if counts["verdict"] not in wanted:
            passed = counts["passed"]
            found.append(
                f"{block}: {counts['verdict']} ({passed['base']} → {passed[arm]} of {counts['cases']} passed); "
                f"`tunesmith compare {run} --arms base,{arm}` shows the flips"
            )
    return found
