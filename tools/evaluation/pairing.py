"""Two arms of a run from stored results: which evaluations count, which cases tell the two apart, and the comparison.

Which evaluation of an arm counts is `memory.arms`' rule, the one that the view `v_flips` goes by.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from tunesmith.memory.arms import ARMS, CHAIN, EVALUATIONS, GIVEN, pairs_sql, under_test
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.protocol import Key, Keys, measured
from tunesmith.tools.evaluation.statistics import case_outcomes, compare_arms
from tunesmith.tools.suites.case import Case, claimed_cases
from tunesmith.tools.suites.grading import asks_model
from tunesmith.tools.suites.loading import read_suite


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The evaluations of a run that count: its finished ones, and the one that asks, where that is still at work."""

    run: str
    keys: Mapping[str, Keys]
    """Step → the keys of the arms that answered in it; the oldest first."""

    @classmethod
    def of(cls, store: Store, run: str, *, at_work: tuple[str, Keys] | None = None) -> Evaluations:
        """Read them. `at_work` is a step that evaluates right now, with its keys."""
        finished: dict[str, dict[str, Key]] = {}
        for row in store.read(f"SELECT * FROM ({EVALUATIONS}) WHERE run = ? ORDER BY place", run):
            finished.setdefault(row["step"], {})[row["arm"]] = json.loads(row["key"])
        return cls(run, {**finished, **dict([at_work] if at_work else [])})

    @property
    def arms(self) -> list[str]:
        """The arms that were evaluated, in the order of the pipeline."""
        return [arm for arm in ARMS if any(arm in keys for keys in self.keys.values())]

    def of_arm(self, arm: str, lineage: Lineage | None = None) -> list[str]:
        """The steps that evaluated an arm, the oldest first; of a lineage's own artifact alone where it has one."""
        artifact = lineage.models.get(arm) if lineage else None
        return [
            step
            for step, keys in self.keys.items()
            if arm in keys and (artifact is None or measured(arm, keys[arm]) == artifact.sha256)
        ]

    def need(self, arm: str, lineage: Lineage | None = None) -> list[str]:
        """`of_arm`, at least one. Raises NotFound, naming what makes one."""
        if steps := self.of_arm(arm, lineage):
            return steps
        artifact = lineage.models.get(arm) if lineage else None
        version = f" as it is now ({artifact.id})" if artifact else ""
        raise NotFound(
            f"run {self.run} has no finished evaluation of the arm {arm!r}{version}; "
            f"`tunesmith {'baseline' if arm == 'base' else f'evaluate --arm {arm}'}` makes one"
        )

    def pair(self, store: Store, steps: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The step that counts for each of two arms, of those that are given for it; the earlier arm first."""
        given = [
            {"run": self.run, "arm": arm, "step": step, "key": keys[arm]}
            for step, keys in self.keys.items()
            for arm in steps
            if step in steps[arm]
        ]
        [row] = store.read(pairs_sql(GIVEN), json.dumps(given, default=str))
        return {row["first_arm"]: row["first_step"], row["last_arm"]: row["last_step"]}


def chain_pairs(arms: Collection[str]) -> list[tuple[str, str]]:
    """The hops of the chain over the arms that are there: each against the nearest before it."""
    return list(itertools.pairwise(arm for arm in CHAIN if arm in arms))


_seen: ContextVar[dict[tuple[str, str, str, bool], Comparison] | None] = ContextVar("seen", default=None)


@contextmanager
def each_pair_once() -> Iterator[None]:
    """Within it a pair of arms is compared once, however many ask: of records that nothing changes meanwhile."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def compare_run(
    store: Store,
    run: str,
    a: str,
    b: str,
    *,
    at_work: tuple[str, Keys] | None = None,
    lineage: Lineage | None = None,
    claimed: bool = False,
) -> Comparison:
    """Arms `a` and `b` of a run, from stored results; `tunesmith compare` prints it.

    `claimed` holds them to what a claim may rest on: of a block with blind cases these alone. Flips of blind cases are
    counted and not named, until somebody opens them.

    `at_work` is an evaluating step that did not end yet, with its keys. Of an arm in `lineage` only answers of that
    very artifact count. Raises NotFound where an arm has none, BadInput where the suite that they belong to cannot be
    read any more.
    """
    for arm in (a, b):
        if arm not in ARMS:
            raise BadInput(f"no arm {arm!r}; the arms are {', '.join(ARMS)}")
    if a == b:
        raise BadInput(f"{a} cannot be compared with itself; name two different arms, such as base and adapter")
    seen = _seen.get() if at_work is None and lineage is None else None
    if seen is None:
        return _compared(store, run, a, b, at_work, lineage, claimed=claimed)
    if (pair := (run, a, b, claimed)) not in seen:
        seen[pair] = _compared(store, run, a, b, at_work, lineage, claimed=claimed)
    return seen[pair]


def _compared(
    store: Store, run: str, a: str, b: str, at_work: tuple[str, Keys] | None, lineage: Lineage | None, *, claimed: bool
) -> Comparison:
    evaluations = Evaluations.of(store, run, at_work=at_work)
    steps = evaluations.pair(store, {arm: evaluations.need(arm, lineage) for arm in sorted((a, b), key=ARMS.index)})
    _, last = steps
    cases = cases_of(store, run, evaluations.keys[steps[last]][last].get("suite"))
    pair = _pair(store, evaluations, steps, cases)
    unasked = pair.left_out | (_chosen_by(cases.values()) if claimed else frozenset())
    outcomes = {
        arm: case_outcomes((r for r in store.results(step, arm) if r.case_id not in unasked), cases).values()
        for arm, step in pair.steps.items()
    }
    compared = compare_arms(outcomes[a], outcomes[b], arms=(a, b), keys=pair.keys, allowed=under_test(a, b))
    left_out = dict(Counter(str(case.block) for name, case in cases.items() if name in pair.left_out))
    hidden = hidden_cases(store, run)
    flips = tuple(flip for flip in compared.flips if flip.case_id not in hidden)
    return replace(compared, run=run, steps={arm: pair.steps[arm] for arm in (a, b)}, left_out=left_out, flips=flips)


def _chosen_by(cases: Collection[Case]) -> frozenset[str]:
    """The dev cases of blocks that have blind ones beside them."""
    by_block = {block: [case for case in cases if case.block == block] for block in {case.block for case in cases}}
    claimed = {case.case_id for of_block in by_block.values() for case in claimed_cases(of_block)}
    return frozenset(case.case_id for case in cases if case.case_id not in claimed)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A step for each arm, the cases that do not tell the two apart, and the keys as far as they bear on the rest."""

    steps: Mapping[str, str]
    left_out: frozenset[str]
    keys: Keys


def _pair(store: Store, evaluations: Evaluations, steps: Mapping[str, str], cases: Mapping[str, Case]) -> _Pair:
    """`steps` names the earlier arm of the chain before the later one."""
    first, last = steps
    left_out = frozenset(name for name, case in cases.items() if not all(map(case.asked_of, steps)))
    asked = [case for name, case in cases.items() if name not in left_out]
    keys = {arm: _relevant(evaluations.keys[step][arm], asked) for arm, step in steps.items()}
    origins = _origins(store, evaluations.run, first, last, keys)
    return _Pair(steps, left_out, {arm: {**key, **origins.get(arm, {})} for arm, key in keys.items()})


def _relevant(key: Key, asked: Sequence[Case]) -> Key:
    """A comparability key without the models that grade none of the cases that both arms were asked."""
    needed = {role for case in asked for role in asks_model(case.assertions).values()}
    idle = {"judge", "embedder"} - needed if asked else set()
    return {name: value for name, value in key.items() if name.split("_")[0] not in idle}


def _origins(store: Store, run: str, first: str, last: str, keys: Keys) -> Keys:
    """What the later arm was made from beside what the earlier one is: a part of both keys, where the store knows."""
    artifacts = [a for a in store.artifacts(run, last) if a.sha256 == measured(last, keys[last])]
    own = Lineage.of(store, artifacts[-1], last).models.get(first) if artifacts else None
    if own is None:
        return {}
    sha256s = {first: measured(first, keys[first]), last: own.sha256}
    return {arm: {"origin": f"{first} {sha256[:12]}"} for arm, sha256 in sha256s.items()}


def cases_of(store: Store, run: str, suite_sha256: object) -> dict[str, Case]:
    """The cases, by id, of the suite that answers were given to; none where the run never recorded it. Raises BadInput.

    Without them nobody knows which cases were made from one seed row, so a suite that is gone is no empty one.
    """
    artifacts = [a for a in store.artifacts(run, "suite") if a.meta.get("suite_sha256") == suite_sha256]
    if not artifacts:
        return {}
    try:
        return {case.case_id: case for case in read_suite(artifacts[-1].path).cases}
    except (OSError, ValueError, BadInput) as error:  # gone, unreadable, or of another version
        why = error.strerror if isinstance(error, OSError) else "it is not what the baseline wrote"
        raise BadInput(
            f"cannot compare arms of {run}: the suite {artifacts[-1].path} cannot be read ({why}); put it back, or run "
            "`tunesmith baseline` and evaluate again"
        ) from None
