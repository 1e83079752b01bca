"""What the evaluating stages share: the suite of a run, its price, and comparisons from stored results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import DONE, Artifact, EvalResult, Step
from tunesmith.memory.store import Store
from tunesmith.tools.compare import LISTED_BLOCKS, compare_arms, differences
from tunesmith.tools.grading import asks_model
from tunesmith.tools.local_paths import local_path
from tunesmith.tools.memory_math import ServerMemory, kv_bytes_per_token, server_memory
from tunesmith.tools.serving_spec import CONTEXT_TOKENS, ServerSpec, no_vllm
from tunesmith.tools.stage import ARMS, Facts
from tunesmith.tools.suite_export import stored_grade
from tunesmith.tools.suites import BUNDLED, Case, Suite, load_suites

_DEMO = "demo"
SuiteName = Annotated[str, local_path(_DEMO, *BUNDLED)]
"""A suite in a request: a file, or a short name."""
_SERVER_START_S = 30.0
# Tokens per second of a 1e9-parameter model on the reference machine, many requests at once.
_TOKENS_PER_SECOND_BILLION = 55.0
_USUAL_SHARE_OF_MAX_TOKENS = 0.6

CHAIN = ("base", "adapter", "merged", "quantized")
"""What a model becomes on its way from the base to what is served."""
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


def serving_memory(model: Artifact, context_tokens: int = CONTEXT_TOKENS) -> ServerMemory:
    """Peak of a vLLM server of this model with the settings that every arm is measured with, or a longer context."""
    return measuring_memory(model.bytes, kv_bytes_per_token(model.meta.get("config", {})), context_tokens)


def measuring_memory(weight_bytes: int, kv_bytes: int, context_tokens: int = CONTEXT_TOKENS) -> ServerMemory:
    """The same from the bytes of the weights, and of the cache for a token."""
    sequences = ServerSpec(model_dir="", served_name="").max_num_seqs
    return server_memory(weight_bytes, kv_bytes_per_token=kv_bytes, context_tokens=context_tokens, sequences=sequences)


Keys = Mapping[str, Mapping[str, Any]]
"""Arm → the comparability key that its answers were made under."""


def compare_run(
    store: Store,
    run: str,
    a: str,
    b: str,
    *,
    unfinished: tuple[str, Keys] | None = None,
    made: Mapping[str, Artifact] | None = None,
) -> dict[str, Any]:
    """Arms `a` and `b` of a run from stored results, in the JSON shape of `tunesmith compare`.

    The later arm of the chain counts by its newest evaluation; the other by the same step where that holds both (one
    server, nothing else changed), else by its newest that may be compared, else by its newest. `unfinished` is an
    evaluating step that is still at work, with its keys. Of an arm in `made` only answers of that very artifact count.
    `left_out` numbers, by block, the suite's cases that were not asked of both alike, and so tell nothing of the two.
    Raises NotFound where an arm has none, BadInput where the suite that they belong to cannot be read any more.
    """
    for arm in (a, b):
        if arm not in ARMS:
            raise BadInput(f"no arm {arm!r}; the arms are {', '.join(ARMS)}")
    evaluations = {step.id: found for step in store.steps(run, status=DONE) if (found := keys_of(step))}
    evaluations |= dict([unfinished] if unfinished else [])
    first, last = sorted((a, b), key=ARMS.index)
    holding = {arm: _holding(evaluations, run, arm, (made or {}).get(arm)) for arm in (a, b)}
    step = holding[last][-1]
    cases = cases_of(store, run, evaluations[step][last].get("suite"))
    candidates = [step] if step in holding[first] else holding[first][::-1]
    pairs = (_pair(store, run, evaluations, {first: one, last: step}, cases) for one in candidates)
    pair = _first_comparable(pairs, allowed := _allowed(a, b))
    records_a, records_b = (
        [
            _record(r, cases.get(r.case_id))
            for r in store.results(pair.steps[arm], arm)
            if r.case_id not in pair.left_out
        ]
        for arm in (a, b)
    )
    compared = compare_arms(records_a, records_b, arms=(a, b), keys=pair.keys, allowed=allowed)
    left_out = dict(Counter(case.block for name, case in cases.items() if name in pair.left_out))
    return {"run": run, "steps": {arm: pair.steps[arm] for arm in (a, b)}, **compared, "left_out": left_out}


def _allowed(a: str, b: str) -> frozenset[str]:
    # An adapter's server allows its rank, a prompt's the usual one. What makes room for adapters answers no request
    # that names none, and base and adapter, which share that server, are held to be equal on the same ground.
    ranks = frozenset({"lora"}) if {a, b} == {"prompted", "adapter"} else frozenset[str]()
    return HOPS.get(a, frozenset()) | HOPS.get(b, frozenset()) | ranks


def _holding(evaluations: Mapping[str, Keys], run: str, arm: str, made: Artifact | None) -> list[str]:
    """Steps that evaluated an arm, the oldest first; of `made` alone where it is given. Raises NotFound."""
    steps = [
        step
        for step, keys in evaluations.items()
        if arm in keys and (made is None or measured(arm, keys[arm]) == made.sha256)
    ]
    if not steps:
        which = f" as it is now ({made.id})" if made else ""
        raise NotFound(
            f"run {run} has no finished evaluation of the arm {arm!r}{which}; "
            f"`tunesmith {'baseline' if arm == 'base' else f'evaluate --arm {arm}'}` makes one"
        )
    return steps


def measured(arm: str, key: Mapping[str, Any]) -> Any:
    """The sha256 of the artifact that an arm's answers came from, by their comparability key."""
    return key.get("adapter" if arm == "adapter" else "weights")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A step for each arm, the cases that do not tell the two apart, and the keys as far as they bear on the rest."""

    steps: Mapping[str, str]
    left_out: frozenset[str]
    keys: Mapping[str, Mapping[str, Any]]


def _first_comparable(pairs: Iterable[_Pair], allowed: frozenset[str]) -> _Pair:
    """The first pair whose keys differ in nothing but what is allowed; where none is, the first."""
    first = None
    for pair in pairs:
        key_a, key_b = pair.keys.values()
        if not differences(key_a, key_b, allowed):
            return pair
        first = first or pair
    assert first is not None  # `_holding` raises before
    return first


def _pair(
    store: Store, run: str, evaluations: Mapping[str, Keys], steps: Mapping[str, str], cases: Mapping[str, Case]
) -> _Pair:
    """`steps` names the earlier arm of the chain before the later one."""
    first, last = steps
    together = {arm: tuple(evaluations[step]) for arm, step in steps.items()}
    one_step = steps[first] == steps[last]
    left_out = frozenset(name for name, case in cases.items() if not _asked_of_both(case, together, one_step))
    asked = [case for name, case in cases.items() if name not in left_out]
    keys = {arm: _bearing(evaluations[step][arm], asked) for arm, step in steps.items()}
    origins = _origins(store, run, first, last, keys)
    return _Pair(steps, left_out, {arm: {**key, **origins.get(arm, {})} for arm, key in keys.items()})


def _bearing(key: Mapping[str, Any], asked: Sequence[Case]) -> dict[str, Any]:
    """A comparability key without the models that grade none of the cases that both arms were asked."""
    needed = {role for case in asked for role in asks_model(case.assertions).values()}
    idle = {"judge", "embedder"} - needed if asked else set()
    return {name: value for name, value in key.items() if name.split("_")[0] not in idle}


def _origins(
    store: Store, run: str, first: str, last: str, keys: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What the later arm was made from beside what the earlier one is: a part of both keys, where the store knows."""
    found = [a for a in store.artifacts(run, last) if a.sha256 == measured(last, keys[last])]
    own = store.ancestor(found[-1], first) if found and first in CHAIN and last in CHAIN else None
    if own is None:
        return {}
    sha256s = {first: str(measured(first, keys[first])), last: own.sha256}
    return {arm: {"origin": f"{first} {sha256[:12]}"} for arm, sha256 in sha256s.items()}


def keys_of(step: Step) -> Keys:
    """Comparability keys by arm of a finished baseline or evaluation; empty for any other step."""
    result = step.result or {}
    if step.stage == "baseline":
        return {"base": result["key"]}
    keys: Keys = result["keys"] if step.stage == "evaluate" else {}
    return keys


def cases_of(store: Store, run: str, suite_sha256: Any) -> dict[str, Case]:
    """The cases, by id, of the suite that answers were given to; none where the run never recorded it. Raises BadInput.

    Without them nobody knows which cases were made from one seed row, so a suite that is gone is no empty one.
    """
    artifacts = [a for a in store.artifacts(run, "suite") if a.meta.get("suite_sha256") == suite_sha256]
    if not artifacts:
        return {}
    try:
        return {case.case_id: case for case in read_suite(artifacts[-1].path).cases}
    except (OSError, ValueError, BadInput) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what the baseline wrote"
        raise BadInput(
            f"cannot compare arms of {run}: the suite {artifacts[-1].path} cannot be read ({why}); put it back, or run "
            "`tunesmith baseline` and evaluate again"
        ) from None


def _asked_of_both(case: Case, together: Mapping[str, Sequence[str]], one_step: bool) -> bool:
    """Whether a case tells two arms apart: asked of both, and not graded against different rivals."""
    return all(case.asked_of(arm, arms) for arm, arms in together.items()) and (one_step or not case.needs_rivals)


def _record(result: EvalResult, case: Case | None) -> dict[str, Any]:
    record = {name: getattr(result, name) for name in ("case_id", "block", "passed", "score", "error", "repeat")}
    if case:
        record["cluster"] = case.cluster
    if case and result.passed is not None and names_metrics(case):
        record["metrics"] = dict(stored_grade(case, result).named_scores)
    return record


def names_metrics(case: Case) -> bool:
    """Whether the case's assertions give scores to metrics of their own."""
    return any(a.metric for assertion in case.assertions for a in (assertion, *assertion.children))
