"""What the evaluating stages share: the suite of a run, its price, and comparisons from stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import DONE, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.compare import compare_arms
from tunesmith.tools.stage import ARMS, GIB, Facts
from tunesmith.tools.suites import Suite, load_suites

_DEMO = "demo"
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


def need_vllm(facts: Facts) -> str:
    """The vllm program. Raises BadInput where none was found."""
    if not facts.vllm:
        raise BadInput("no vLLM found; run `make setup`, or name the program in TUNESMITH_VLLM or in settings.toml")
    return facts.vllm


def demo_suites() -> list[Path]:
    """The bundled suites: target, general, tools."""
    folder = Path(str(files("tunesmith.prompts"))) / "demo" / "suites"
    return [folder / f"{block}.yaml" for block in ("target", "general", "tools")]


def load_named_suites(names: Sequence[str], cases_per_block: int = 0) -> Suite:
    """Parse suites by file name, 'demo' standing for the bundled ones; at most so many cases of each block."""
    paths = [path for name in names for path in (demo_suites() if name == _DEMO else [Path(name).expanduser()])]
    return thin(load_suites(paths), cases_per_block)


def thin(suite: Suite, cases_per_block: int) -> Suite:
    """At most `cases_per_block` cases of each block, evenly spaced over it so that its kinds stay mixed; 0: all."""
    if not cases_per_block:
        return suite
    kept = []
    for block in dict.fromkeys(case.block for case in suite.cases):
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

    Taken from one step where one holds both (one server, nothing else changed), else from each arm's newest.
    `unfinished` is an evaluating step that is still at work, with its keys.
    """
    for arm in (a, b):
        if arm not in ARMS:
            raise BadInput(f"no arm {arm!r}; the arms are {', '.join(ARMS)}")
    evaluations = [(step.id, keys_of(step)) for step in store.steps(run, status=DONE) if keys_of(step)]
    evaluations += [unfinished] if unfinished else []
    step_a, step_b = _steps_of(evaluations, run, a, b)
    keys = {a: dict(dict(evaluations)[step_a][a]), b: dict(dict(evaluations)[step_b][b])}
    records_a, records_b = ([_record(r) for r in store.results(s, arm)] for s, arm in ((step_a, a), (step_b, b)))
    allowed = HOPS.get(a, frozenset()) | HOPS.get(b, frozenset())
    return {"run": run, **compare_arms(records_a, records_b, arms=(a, b), keys=keys, allowed=allowed)}


def _steps_of(evaluations: Sequence[tuple[str, Keys]], run: str, a: str, b: str) -> tuple[str, str]:
    holding = {arm: [step for step, keys in evaluations if arm in keys] for arm in (a, b)}
    for arm, steps in holding.items():
        if not steps:
            raise NotFound(f"run {run} has no finished evaluation of the arm {arm!r}; `tunesmith evaluate` makes one")
    shared = [step for step in holding[a] if step in holding[b]]
    return (shared[-1], shared[-1]) if shared else (holding[a][-1], holding[b][-1])


def keys_of(step: Step) -> Keys:
    """Comparability keys by arm of a finished baseline or evaluation; empty for any other step."""
    result = step.result or {}
    if step.stage == "baseline":
        return {"base": result["key"]}
    keys: Keys = result["keys"] if step.stage == "evaluate" else {}
    return keys


def _record(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("case_id", "block", "passed", "score", "error", "repeat")}


def broken_hops(store: Store, run: str, arm: str) -> list[str]:
    """Why `arm` must not be deployed: not evaluated, not better on the target, or worse elsewhere; empty: it may."""
    try:
        compared = compare_run(store, run, "base", arm)
    except NotFound as error:
        return [str(error)]
    if not compared["comparable"]:
        return [f"base and {arm} differ in {', '.join(compared['differs_in'])}; evaluate both again"]
    found = []
    for block, counts in compared["blocks"].items():
        wanted = ("better",) if block == "target" else ("better", "not worse", "no decision")
        if counts["verdict"] not in wanted:
            passed = counts["passed"]
            found.append(
                f"{block}: {counts['verdict']} ({passed['base']} → {passed[arm]} of {counts['cases']} passed); "
                f"`tunesmith compare {run} --arms base,{arm}` shows the flips"
            )
    return found
