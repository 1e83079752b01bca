"""What the evaluating stages share: the suite of a run, its price, and comparisons from stored results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import DONE, Artifact, EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import ARMS
from tunesmith.tools.evaluation.protocol import CHAIN, HOPS, Keys, keys_of, measured
from tunesmith.tools.evaluation.statistics import compare_arms, differences
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.export import stored_grade
from tunesmith.tools.suites.grading import asks_model
from tunesmith.tools.suites.loading import read_suite


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
