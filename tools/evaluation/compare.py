"""What `tunesmith compare` tells: two arms, the hops between them, the cases still failed, and what a prompt can do.

Around the comparison itself stands what keeps "passes the suite" and "flawless" apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tunesmith.memory.arms import ARMS, CHAIN
from tunesmith.memory.records import AssertionResult
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.advice import goal_rate, prompt_advice
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.evaluation.comparison import WORSE, Comparison, Json
from tunesmith.tools.evaluation.evidence import Evidence, evidence_of
from tunesmith.tools.evaluation.pairing import Evaluations, chain_pairs, compare_run
from tunesmith.tools.evaluation.retained import GainRetained, gain_retained
from tunesmith.tools.evaluation.statistics import case_outcomes
from tunesmith.tools.suites.case import LISTED_BLOCKS

_LEAK_BLOCKS = ("target", "adversarial")
_REASON_CHARACTERS = 160
"""Two lines of a terminal; the whole reason is in the record."""
_OF_A_HOP = ("arms", "comparable", "differs_in", "blocks", "flips", "left_out")


@dataclass(frozen=True, slots=True)
class KnownLimit:
    """A target or adversarial case that an arm still fails: where the old behaviour leaks."""

    case_id: str
    block: str
    reason: str


@dataclass(frozen=True, slots=True)
class ComparedWithHops:
    """Two arms of a run, the hops between them, the cases that the second fails, and advice about a prompt."""

    whole: Comparison
    chain: tuple[Comparison, ...]
    """Neighbours on the way from the one to the other; none where that is a single hop."""
    known_limits: tuple[KnownLimit, ...]
    """Blind cases are counted in `blind_limits`."""
    advice: str
    """Whether the prompted base makes training needless; empty where it is neither of the two."""
    evidence: Evidence | None = None
    """The verdict on the later arm against the base, and the controls; None where nobody asked."""
    retained: tuple[GainRetained, ...] = ()
    """What each arm between the adapter and the second, itself included, kept of the adapter's gain."""
    blind_limits: int = 0

    @property
    def broken_gates(self) -> list[str]:
        """Why a pipeline must stop: the arms may not be compared, or a block that gates got worse, over a hop too."""
        worse = [
            f"{' → '.join(one.arms)}, {name} got worse: {block.reason}"
            for one in (self.whole, *self.chain)
            for name, block in one.blocks.items()
            if block.verdict == WORSE and name not in LISTED_BLOCKS
        ]
        return [*([self.whole.refused] if self.whole.refused else []), *worse]

    def to_json(self) -> Json:
        """The whole document of `tunesmith compare --json`."""
        hops = [hop.to_json() for hop in self.chain]
        return {
            **self.whole.to_json(),
            "chain": [{name: hop[name] for name in _OF_A_HOP} for hop in hops],
            "known_limits": [asdict(limit) for limit in self.known_limits],
            "known_limits_blind": self.blind_limits,
            "advice": self.advice,
            "gain_retained": [one.to_json() for one in self.retained],
            **(self.evidence.to_json() if self.evidence else {}),
        }


def compare_with_hops(store: Store, run: str, a: str, b: str) -> ComparedWithHops:
    """Compare two arms of a run, and every hop of the chain between them that was evaluated. Raises NotFound."""
    whole, hidden = compare_run(store, run, a, b), hidden_cases(store, run)
    limits = known_limits(store, whole.steps[b], b) if b != "base" else ()
    return ComparedWithHops(
        whole=whole,
        chain=_hops(store, run, a, b),
        known_limits=tuple(limit for limit in limits if limit.case_id not in hidden),
        blind_limits=sum(limit.case_id in hidden for limit in limits),
        advice=prompt_advice(whole, goal_rate(store, whole)),
        evidence=evidence_of(store, run, max((a, b), key=ARMS.index)),
        retained=tuple(one for one in gain_retained(store, run) if ARMS.index(one.arm) <= ARMS.index(b)),
    )


def _hops(store: Store, run: str, a: str, b: str) -> tuple[Comparison, ...]:
    if a not in CHAIN or b not in CHAIN or CHAIN.index(a) >= CHAIN.index(b):
        return ()
    between = CHAIN[CHAIN.index(a) : CHAIN.index(b) + 1]
    pairs = chain_pairs([arm for arm in Evaluations.of(store, run).arms if arm in between])
    return tuple(compare_run(store, run, *pair) for pair in pairs) if len(pairs) > 1 else ()


def known_limits(store: Store, step: str, arm: str) -> tuple[KnownLimit, ...]:
    """The target and adversarial cases that an arm still fails, each with a reason."""
    results = store.results(step, arm)
    reasons = {r.case_id: reason for r in results if (reason := _reason(r.assertions))}
    failed = [v for v in case_outcomes(results).values() if v.passed is False and v.block in _LEAK_BLOCKS]
    limits = [KnownLimit(v.case_id, v.block, reasons.get(v.case_id, "")) for v in failed]
    return tuple(sorted(limits, key=lambda limit: (_LEAK_BLOCKS.index(limit.block), limit.case_id)))  # the target first


def _reason(assertions: Sequence[AssertionResult]) -> str:
    reason = next((a.reason or a.type for a in assertions if not a.passed), "")
    return reason if len(reason) <= _REASON_CHARACTERS else reason[: _REASON_CHARACTERS - 1] + "…"
