"""Training settings by the model and the rows, each with its reason, so that "why rank 16?" has a true answer.

A step's rows: of 130 rows in the same 2 epochs, on the same rows and seed, a 135M model learned 18 of 40 cases at 8
rows a step, 24 at 4 and 27 at 2, for 1 : 1 : 1.2 of the time; so few rows get small steps, and as many views of rows.

Held to the base: 36 rows of an extraction behaviour on a 0.5B, 139 steps each (one run of each). At 8e-4 and a
rehearsal weight of 1: 27 of 40 people's cases, KL to the base 0.138, general block 34 → 23 of 40. At 3e-4 and 3: 28 of
40, KL 0.020, general 31. The divergence fell as the square of the rate, so a larger model, which needs less of it to
learn a form, takes the lower rate, one form of a row an epoch, and more weight on rehearsal.

Sources: tinker-cookbook's rule for the learning rate of LoRA by hidden size, and its sweep over 24 models; LoRA Without
Regret (Schulman et al. 2025) for rank as capacity, the ratio of ten to full fine-tuning and short runs. A run's own
request goes before all of it. Not covered: rewards, long contexts, more than one epoch over a million rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.tools.models.shape import ModelShape

_FULL_RATE, _LORA_FACTOR, _REFERENCE_HIDDEN = 5e-5, 10, 2000  # the rule: 5e-5 · 10 · (2000 / hidden)^exponent
# The rule's exponent by family. A family that the sweep did not hold takes the one that gives the lower rate.
_EXPONENTS = {"qwen": 0.0775, "llama": 0.781}
# Between these published sweeps found the best rate.
_RATE_MIN, _RATE_MAX = 1e-4, 1e-3
_SHORT_RUN_STEPS, _SHORT_RUN_FACTOR = 100, 1.5
"""LoRA Without Regret: ten times the rate of full fine-tuning, fifteen in short runs."""
_RATE_CAP = 3e-4
"""Best of 14 of the sweep's 24 models; the other 10 did best at 1e-3."""
_LARGE_RATES = ((13.5e9, 1e-4), (6.5e9, 2e-4))
"""Parameters, and the most from there on: QLoRA (Dettmers et al. 2023, table 9) has 2e-4 at 7 and 13B, 1e-4 above."""
_TINY_PARAMETERS = 300_000_000
"""Between the sizes that were measured, 135M and 0.5B."""
_WEIGHT_TINY, _WEIGHT = 1.0, 3.0
_KL_TINY, _KL = 0.2, 0.05
"""Weight and bound by what was lost at which: `_rehearsal_weight`, and the reason of `max_kl`, have the figures."""
_VIEWS = 960
"""Rows that a training sees, those seen again included. Of 394 rows for four labels and a copied name a 1.5B
passed 21 of 40 people's cases after 480 of them and 34 after 960, general block 57 and 55 of 63 (55 before)."""
_VIEWS_MOST = 9000
"""Where so many cost little: three epochs up to 3,000 rows."""
_EPOCHS_MIN, _EPOCHS_MAX = 1.0, 3.0
"""Every row is seen; beyond three times rows are memorised."""
_VARIANTS_TINY, _VARIANTS = 3, 1
_BATCHES = ((200, 2), (1000, 4))
"""Below so many rows, rows a step: the fewer rows, the more steps they have to give."""
_BATCH = 8
"""LoRA Without Regret: large batches hurt. Far fewer rows a step leave a device waiting."""
_VALUE_WEIGHT = 6.0
"""Values are few of an answer's tokens, and what it is right by; measured with the rest (docs/measurements.md)."""
_RANK_MIN, _RANK_MAX = 16, 64
"""What vLLM has room for unless told, and where published runs forget more and gain little."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values for the fields that a request leaves open, and why each is what it is."""

    values: Mapping[str, float | int]
    reasons: Mapping[str, str] = field(default_factory=dict)


def training_defaults(
    config: Mapping[str, object],
    *,
    rows: int,
    tokens_per_row: int,
    batch_size: int = 0,
    epochs: float = 0.0,
    max_steps: int = 0,
    load_in_4bit: bool = False,
    valued_rows: int = 0,
    cheap_views: int = 0,
) -> Defaults:
    """Learning rate, epochs, rows a step and rank for a base of this config and a data set of this many rows.

    `tokens_per_row` is a whole row's: an upper bound of what is learned from it. `batch_size`, `epochs` and `max_steps`
    are what was asked for; 0: open. `cheap_views` rows, repeats counted, cost little here. With `load_in_4bit` a
    mixture's adapter has attention alone. Of `valued_rows` it is known where their answers say values.
    """
    parameters = ModelShape.of(config).parameters
    batch_size = batch_size or _rows_a_step(rows)
    wanted, why_epochs = _epochs(rows, min(_VIEWS_MOST, max(_VIEWS, cheap_views)))
    epochs = epochs or wanted
    steps = max_steps or max(1, round(epochs * rows / batch_size))
    variants, why_variants = _variants_per_epoch(parameters)
    rate, why_rate = _learning_rate(config, steps)
    weight, why_weight = _rehearsal_weight(parameters)
    rank, why_rank = _rank(config, rows * tokens_per_row, experts=not load_in_4bit)
    tiny = parameters < _TINY_PARAMETERS
    return Defaults(
        {
            "learning_rate": rate,
            "epochs": epochs,
            "forms": variants,
            "rehearsal_weight": weight,
            "value_weight": _VALUE_WEIGHT if valued_rows else 1.0,
            "max_kl": _KL_TINY if tiny else _KL,
            "batch_size": batch_size,
            "lora_rank": rank,
            "lora_alpha": 2 * rank,
        },
        {
            "batch_size": f"{rows} rows: the fewer they are, the smaller the steps that learn from them",
            "learning_rate": why_rate,
            "epochs": why_epochs,
            "forms": why_variants,
            "rehearsal_weight": why_weight,
            "value_weight": f"{valued_rows} of {rows} rows say where the values of their answers stand",
            "max_kl": "135M models that ended at 0.02 to 0.1 lost at most 3 of 44 general cases"
            if tiny
            else "at 0.02 a 0.5B lost 3 of 40 general cases, at 0.14 it lost 11",
            "lora_rank": why_rank,
            "lora_alpha": "twice the rank: the update's scale is 2 whatever the rank",
        },
    )


def rehearsal_wanted(own_rows: int, batch_size: int = 0) -> int:
    """Rows to hold the model to its base beside so many of its behaviour: one in a step, on average.

    Every one is then seen as often as a row of the behaviour is. `batch_size` 0: what such a data set gets; of 1, every
    other step has one.
    """
    rehearsal = 0
    while rehearsal * max(batch_size or _rows_a_step(own_rows + rehearsal), 2) < own_rows + rehearsal:
        rehearsal += 1
    return rehearsal


def _learning_rate(config: Mapping[str, object], steps: int) -> tuple[float, str]:
    hidden, family = ModelShape.of(config).hidden, str(config.get("model_type", ""))
    known = next((name for name in _EXPONENTS if name in family), "")
    exponents = [_EXPONENTS[known]] if known else list(_EXPONENTS.values())
    rule = min(_FULL_RATE * _LORA_FACTOR * (_REFERENCE_HIDDEN / hidden) ** exponent for exponent in exponents)
    basis = f"{rule:.1e} by the rule 5e-5 · 10 · (2000 / {hidden})^p of {known or 'an unknown'} family"
    rate, most, parameters = rule, _RATE_CAP, ModelShape.of(config).parameters
    why_most = "at 8e-4 a 0.5B lost 11 of 40 general cases, at 3e-4 3, and learned as much"
    if large := next((most for least, most in _LARGE_RATES if parameters >= least), None):
        most, why_most = large, "QLoRA was published with 2e-4 at 7 to 13B and 1e-4 above"
    if parameters < _TINY_PARAMETERS:
        most, why_most = _RATE_MAX, f"published sweeps found the best rate between {_RATE_MIN:g} and {_RATE_MAX:g}"
        if steps < _SHORT_RUN_STEPS:
            rate *= _SHORT_RUN_FACTOR
            basis += f", {_SHORT_RUN_FACTOR:g} times it for a run of only {steps} steps"
    capped = min(max(rate, _RATE_MIN), most)
    if capped != rate:
        basis += f", held at {capped:g}: {why_most}"
    return float(f"{capped:.2g}"), basis


def _rows_a_step(rows: int) -> int:
    return next((batch for below, batch in _BATCHES if rows < below), _BATCH)


def _epochs(rows: int, views: int) -> tuple[float, str]:
    exact = views / max(rows, 1)
    epochs = round(min(max(exact, _EPOCHS_MIN), _EPOCHS_MAX), 2)
    reason = f"{views} rows, repeats counted, are enough for one behaviour"
    if views > _VIEWS:
        reason = f"{views} rows, repeats counted, cost this card little beside the rest of a plan"
    if exact > _EPOCHS_MAX:
        reason += f"; {rows} would need {exact:.1f} epochs for that, and beyond {_EPOCHS_MAX:g} rows are memorised"
    elif exact < _EPOCHS_MIN:
        reason += f"; {rows} are seen once each all the same"
    return epochs, reason


def _variants_per_epoch(parameters: int) -> tuple[int, str]:
    """Measured once, on 89 rows of weekdays and times and a 135M model: 9 of 40 cases of people with 3 forms of a row
    in all, 14 with 9 of them, in the same time (the rehearsal was cut shorter)."""
    if parameters < _TINY_PARAMETERS:
        return _VARIANTS_TINY, "a tiny model learns how values are written from many of them, not from the same again"
    return _VARIANTS, "a larger model knows how values are written: one form an epoch, another one in the next"


def _rehearsal_weight(parameters: int) -> tuple[float, str]:
    if parameters < _TINY_PARAMETERS:
        return _WEIGHT_TINY, "a tiny model needs most of its training for the behaviour"
    return _WEIGHT, f"at {_WEIGHT:g} and {_RATE_CAP:g} a 0.5B ended at a KL of 0.02 to its base, at 1 and 8e-4 at 0.14"


def _rank(config: Mapping[str, object], tokens: int, *, experts: bool) -> tuple[int, str]:
    """The smallest usual rank whose adapter has more parameters than there are tokens to learn."""
    shape, rank = ModelShape.of(config), _RANK_MIN
    while rank < _RANK_MAX and shape.lora_parameters(rank, experts=experts) < tokens:
        rank *= 2
    capacity = shape.lora_parameters(rank, experts=experts)
    return rank, (
        f"an adapter of rank {rank} has {capacity / 1e6:.1f} M parameters for at most {tokens / 1e3:.0f} k tokens of "
        "rows: "
        + ("more rank would add memory and forgetting, not room" if capacity >= tokens else "the most that is served")
    )
