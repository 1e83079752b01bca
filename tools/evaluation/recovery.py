"""Which setting of `quantize` to try next where quality was lost, the cheapest in bytes first.

GPTQ, where weights were rounded to the nearest step → more calibration → AutoRound → groups of 32 → layers behind
outliers kept at 16 bits → 8 bits → more of these kept. The first three add no byte. The gain
that is expected is arithmetic on the rounding error, whose mean square goes with the square of the step, or was
measured; what it is worth in cases, only the next evaluation tells. Between 4 and 16 bits there is nothing for a single
layer: 8-bit weights beside 4-bit ones are not served on CPUs. Nor are experts of two precisions, so a mixture's
down_proj is never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.tools.models.memory_math import TOKENS_AN_INPUT, calibration_tokens, group_size_for
from tunesmith.tools.models.rounding_terms import AUTOROUND
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.shape import ModelShape

_FINE_GROUP = 32
"""As published for models below 1B; its scales cost half a bit a weight."""
_SEARCHED = (
    "AutoRound learns for each weight whether it is rounded up or down: of the demo's merged model at 4 bits in groups "
    "of 32, 50 of its 200 steps a layer left less than half of GPTQ's divergence (0.141 → 0.064 nats a token); it adds "
    "no byte, and on a CPU all 200 take about twenty times as long as GPTQ"
)
_CORRECTED = (
    "GPTQ makes up for a weight's rounding in those after it: of the bundled model at 8 bits this took away a seventh "
    "of the divergence (0.0053 → 0.0045 nats a token), and it adds no byte"
)


class Setting(NamedTuple):
    """What to change, and what speaks for it."""

    fields: Mapping[str, object]
    why: str


def next_setting(asked: Mapping[str, object], config: Mapping[str, object]) -> Setting | None:
    """The next setting after a resolved request of `quantize`; None where 16 bits are all that is left."""
    scheme = SCHEMES.get(str(asked.get("scheme", "W4A16")))
    if scheme is None:  # of an earlier version
        return None
    if asked.get("rounding") == "nearest" and not scheme.floats:
        return Setting({"rounding": "gptq"}, _CORRECTED)
    shape = ModelShape.of(config)
    value = asked.get("keep")
    keep = tuple(str(name) for name in value) if isinstance(value, list | tuple) else ()
    behind_outliers = ("o_proj",) if shape.experts else ("down_proj", "o_proj")
    first = behind_outliers[:1]
    if scheme.bits == 4:
        return (
            _more_rows(asked, shape)
            or _searched(asked, config, shape)
            or _finer(asked, config)
            or _one_more_at_16_bits(keep, first, shape)
            or _eight_bits(asked, first, shape)
        )
    return _one_more_at_16_bits(keep, behind_outliers, shape)


def _more_rows(asked: Mapping[str, object], shape: ModelShape) -> Setting | None:
    if asked.get("rounding") == AUTOROUND:
        return None
    rows = _number(asked, "calibration_samples") * _number(asked, "max_seq_len_tokens")
    wanted, met = calibration_tokens(shape), _number(asked, "calibration_tokens") or rows
    if not 0 < met < wanted:
        return None
    why = (
        f"at most {met:,} calibration tokens met the {shape.widest_input:,} inputs of the widest layer; "
        f"{TOKENS_AN_INPUT} for each make GPTQ's correction one of more than these rows"
    )
    return Setting({"calibration_tokens": wanted, **({"calibration_samples": "auto"} if rows else {})}, why)


def _searched(asked: Mapping[str, object], config: Mapping[str, object], shape: ModelShape) -> Setting | None:
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    if asked.get("rounding") != "gptq" or shape.experts or stored != "bfloat16":
        return None
    return Setting({"rounding": AUTOROUND}, _SEARCHED)


def _finer(asked: Mapping[str, object], config: Mapping[str, object]) -> Setting | None:
    group = _number(asked, "group_size") or group_size_for(config)
    if group == _FINE_GROUP or group_size_for(config, _FINE_GROUP) != _FINE_GROUP:
        return None
    widest = group or ModelShape.of(config).widest_input
    share = (_largest_of(_FINE_GROUP) / _largest_of(widest)) ** 2
    why = f"a scale for {_FINE_GROUP} weights instead of {widest} leaves about {share:.0%} of the rounding error"
    return Setting({"group_size": _FINE_GROUP}, f"{why}, for half a bit a weight or less")


def _one_more_at_16_bits(keep: tuple[str, ...], candidates: tuple[str, ...], shape: ModelShape) -> Setting | None:
    name = next((name for name in candidates if name not in keep), None)
    if name is None:
        return None
    width = shape.heads * shape.head_dim if name == "o_proj" else shape.intermediate
    share = shape.layers * shape.hidden * width / shape.linear_parameters
    why = f"inputs of {name} often have outliers (not measured here); then {share:.0%} of the weights stay at 16 bits"
    return Setting({"keep": [*keep, name]}, why)


def _eight_bits(asked: Mapping[str, object], keep: tuple[str, ...], shape: ModelShape) -> Setting:
    share = (15 / 255) ** 2  # 4 bits have 15 steps, 8 bits 255, and the error goes with the step squared
    why = (
        f"8 bits leave {share:.1%} of the weights' rounding error of 4, for {shape.linear_parameters / 2e9:.2g} GB more"
    )
    again = {"rounding": "gptq"} if asked.get("rounding") == AUTOROUND else {}  # which are for 4 bits alone
    return Setting({"scheme": "W8A8", "group_size": 0, "keep": list(keep), **again}, why)


def _number(asked: Mapping[str, object], name: str) -> int:
    value = asked.get(name)
    return value if isinstance(value, int) else 0


def _largest_of(count: int) -> float:
    """About the largest size among so many values of a normal distribution, in standard deviations."""
    from statistics import NormalDist

    # Half a value, of both signs together, is to be expected beyond it.
    return NormalDist().inv_cdf(1 - 0.5 / (2 * count))
