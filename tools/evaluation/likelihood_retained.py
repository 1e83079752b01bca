"""Gain retained in likelihood: of the nats a token that the adapter won over the base, how many a later model kept.

On rows of the behaviour that nobody trained on. It sees what no passed case shows: a model that still passes, less
surely. Beside it stands what was lost elsewhere: KL a token from the base, and from the arm before, on ordinary
answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.memory.arms import CHAIN
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.store import Store
from tunesmith.tools.core.ratio_interval import ratio_interval
from tunesmith.tools.evaluation.comparison import Interval, Json
from tunesmith.tools.evaluation.evaluate import EvaluateResult
from tunesmith.tools.evaluation.likelihood import ArmLikelihood
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import Evaluations, compare_run

LEAST_KEPT = 0.5
"""A model that has for certain lost more of the gain than this is not what was trained; published 4-bit merges of small
updates kept 0.1 to 0.4."""
_LEAST_ROWS = 5


@dataclass(frozen=True, slots=True)
class PerToken:
    """A mean over tokens in nats, with its 95 % interval where rows are drawn."""

    mean: float
    interval: Interval

    @classmethod
    def of(cls, nats: Sequence[float], tokens: Sequence[int]) -> PerToken:
        """Of sums and numbers of tokens, a row each."""
        return cls(sum(nats) / sum(tokens), ratio_interval(nats, tokens))


@dataclass(frozen=True, slots=True)
class LikelihoodRetained:
    """What one arm made of held-out rows beside the base and the adapter."""

    arm: str
    rows: int
    nll: Mapping[str, float]
    """base, adapter and the arm itself → nats a token on rows of the behaviour."""
    gain: PerToken
    """What the adapter won over the base, nats a token."""
    share: float | None
    """Kept of it; None of the adapter itself, and where it is not certain that anything was won."""
    interval: Interval | None
    """Of the share, 95 %, where rows are drawn."""
    divergence: Mapping[str, PerToken] = field(default_factory=dict)
    """Earlier arm → KL from it on ordinary answers, nats a token; a lower bound."""
    precisions: Mapping[str, str] = field(default_factory=dict)
    """Arm → what its weights were stored at where it read the rows."""

    @property
    def lost_most(self) -> bool:
        """Whether it is certain that less than `LEAST_KEPT` of the gain is left."""
        return self.interval is not None and self.interval[1] < LEAST_KEPT

    @property
    def sentence(self) -> str:
        """The number with its interval, and what it cost elsewhere."""
        return f"{self._on_the_behaviour}{self._elsewhere}{self._at}"

    @property
    def brief(self) -> str:
        """The same in a few words, as what is kept; empty where no share is known."""
        if self.share is None or self.interval is None:
            return ""
        low, high = self.interval
        kept = f"{self.share:.0%} of its gain in likelihood ({low:.0%} to {high:.0%})"
        base = self.divergence.get("base")
        return f"{kept}, at a KL of {base.mean:.3f} nats a token from the base on ordinary answers" if base else kept

    @property
    def _on_the_behaviour(self) -> str:
        where = f"on {self.rows} rows that were not trained on"
        if self.arm == "adapter":
            low, high = self.gain.interval
            return (
                f"the adapter wins {self.gain.mean:.2f} nats a token over the base (95 % interval {low:.2f} to "
                f"{high:.2f}; {self.nll['base']:.2f} → {self.nll['adapter']:.2f}) {where}"
            )
        nats = " → ".join(f"{self.nll[arm]:.2f}" for arm in ("base", "adapter", self.arm))
        means = f"base → adapter → {self.arm}: {nats} nats a token {where}"
        if self.share is None or self.interval is None:
            return f"too little was won in likelihood to say what {self.arm} keeps of it ({means})"
        low, high = self.interval
        return (
            f"{self.arm} keeps {self.share:.0%} of what the adapter won in likelihood (95 % interval {low:.0%} to "
            f"{high:.0%}; {means})"
        )

    @property
    def _elsewhere(self) -> str:
        if not self.divergence:
            return ""
        from_ = " and ".join(f"{one.mean:.3f} from the {arm}" for arm, one in self.divergence.items())
        return f"; on ordinary answers its KL is {from_} (nats a token, at least)"

    @property
    def _at(self) -> str:
        """The precisions, where they are not all the same."""
        if len(set(self.precisions.values())) < 2:
            return ""
        arms: dict[str, list[str]] = {}
        for arm, precision in self.precisions.items():
            arms.setdefault(precision, []).append(arm)
        return "; " + ", ".join(f"{' and '.join(those)} at {precision}" for precision, those in arms.items())

    def to_json(self) -> Json:
        """As `compare`, the report and `explain` print it."""
        return {
            "arm": self.arm,
            "rows": self.rows,
            "nll_per_token": dict(self.nll),
            "gain_per_token": self.gain.mean,
            "gain_interval": list(self.gain.interval),
            "share": self.share,
            "interval": list(self.interval) if self.interval else None,
            "kl_per_token": {arm: one.mean for arm, one in self.divergence.items()},
            "kl_intervals": {arm: list(one.interval) for arm, one in self.divergence.items()},
            "precisions": dict(self.precisions),
        }


def likelihood_retained(store: Store, run: str, *, lineage: Lineage | None = None) -> tuple[LikelihoodRetained, ...]:
    """Of every arm that read the rows, the earlier hop first; of a lineage's own artifacts alone where one is given."""
    return tuple(found for arm in CHAIN[1:] if (found := _retained(store, run, arm, lineage)))


def likelihood_refusal(store: Store, run: str, arm: str, lineage: Lineage | None = None) -> str:
    """Why an arm must not be deployed for what it lost in likelihood; empty where it may, or nothing is known."""
    found = _retained(store, run, arm, lineage)
    if found is None or not found.lost_most:
        return ""
    return (
        f"{found.sentence}: for certain less than {LEAST_KEPT:.0%}; quantize with more bits or smaller groups, or "
        "deploy the adapter"
    )


def _retained(store: Store, run: str, arm: str, lineage: Lineage | None) -> LikelihoodRetained | None:
    """None where an arm was not evaluated, may not be compared with the next, or read other rows."""
    try:
        gained = compare_run(store, run, "base", "adapter", lineage=lineage)
        hop = gained if arm == "adapter" else compare_run(store, run, "adapter", arm, lineage=lineage)
    except TunesmithError:
        return None
    if not (gained.comparable and hop.comparable):
        return None
    before, after = (_measured(store, step) for step in (hop.steps["adapter"], hop.steps[arm]))
    base, adapter, made = before.get("base"), before.get("adapter"), after.get(arm)
    if base is None or adapter is None or made is None or len(base.behaviour_nll) < _LEAST_ROWS:
        return None
    if len({one.rows_sha256 for one in (base, adapter, made)}) > 1:
        return None
    return replace(retained(arm, base, adapter, made), precisions=_precisions(store, run, hop.steps, arm))


def _precisions(store: Store, run: str, steps: Mapping[str, str], arm: str) -> dict[str, str]:
    """As the keys of the evaluations say: of base and adapter, and of the arm."""
    keys = Evaluations.of(store, run).keys
    asked = (("base", steps["adapter"]), ("adapter", steps["adapter"]), (arm, steps[arm]))
    told = {name: keys[step].get(name, {}).get("precision") for name, step in asked if step in keys}
    return {name: str(precision) for name, precision in told.items() if precision}


def _measured(store: Store, step: str) -> Mapping[str, ArmLikelihood]:
    report = EvaluateResult.of(store.step(step))
    return report.likelihood if report else {}


def retained(arm: str, base: ArmLikelihood, adapter: ArmLikelihood, made: ArmLikelihood) -> LikelihoodRetained:
    """What an arm kept, of three that read the same rows."""
    tokens = base.behaviour_tokens
    won = [b - a for b, a in zip(base.behaviour_nll, adapter.behaviour_nll, strict=True)]
    kept = [b - m for b, m in zip(base.behaviour_nll, made.behaviour_nll, strict=True)]
    gain = PerToken.of(won, tokens)
    certain = arm != "adapter" and gain.interval[0] > 0
    nll = {"base": base, "adapter": adapter, arm: made}
    return LikelihoodRetained(
        arm=arm,
        rows=len(tokens),
        nll={name: math.fsum(one.behaviour_nll) / sum(tokens) for name, one in nll.items()},
        gain=gain,
        share=sum(kept) / sum(won) if certain else None,
        interval=ratio_interval(kept, won) if certain else None,
        divergence={
            before: PerToken.of(nats, made.ordinary_tokens)
            for before, nats in _told(arm, made).items()
            if len(nats) >= _LEAST_ROWS
        },
    )


def _told(arm: str, made: ArmLikelihood) -> dict[str, tuple[float, ...]]:
    """Of all earlier arms that it was held against, the base and the nearest."""
    known = [before for before in CHAIN[: CHAIN.index(arm)] if before in made.divergence]
    return {before: made.divergence[before] for before in dict.fromkeys([*known[:1], *known[-1:]])}
