"""quantize: fewer bits for the merged model's linear layers; lm_head, routers and gates stay as they are, proven."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.auto import AutoInt
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Estimate, Facts, Inputs, Plan, Result, Stage, expected, pinned
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.deploying import Choice, kept_for, scheme_by_size, scheme_for
from tunesmith.tools.export.dry_load import DryLoad, known_dry_loads, with_dry_load
from tunesmith.tools.export.float_kernels import served
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.fitting import quantizing_that_fits
from tunesmith.tools.models.full_precision import HEAD
from tunesmith.tools.models.memory_math import (
    TOKENS_AN_INPUT,
    calibration_tokens,
    group_size_for,
    quantize_cache_bytes,
    quantize_memory_bytes,
    quantize_vram_bytes,
    rows_in_a_batch,
)
from tunesmith.tools.models.rounding_terms import AUTOROUND, Rounding
from tunesmith.tools.models.schemes import SCHEMES, SchemeName
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import autoround_seconds, gptq_seconds, nearest_seconds

USUAL_SAMPLES = 64
"""Where no tokens are asked for: weights that are rounded by themselves take one batch of them."""
_HOW = {
    "gptq": "with GPTQ",
    "nearest": "by rounding every weight to the nearest step",
    "autoround": "with AutoRound: each weight up or down as 200 steps of gradient descent on its layer say",
}
_SMOOTHS = "smooth outliers of the activations into the weights, where the architecture allows it"


class QuantizeRequest(PlacedRequest):
    """How to quantize. What is `auto` is chosen by the model when the plan is made, with the reason."""

    GONE: ClassVar = {"distil_steps": (0,), "keep_share": (0.25,)}

    scheme: Literal["auto", SchemeName] = "auto"
    """Bits of weights and activations, integers or floats; auto: 8 on a card that holds them, else by the model's
    size."""
    group_size: AutoInt = Field(default=0, ge=0)
    """Weights that share a scale; auto: the largest that divides."""
    rounding: Rounding = "gptq"
    """gptq: later weights make up for an error; nearest: several times quicker; autoround: up or down is learned, the
    nearest to the merged model and by far the slowest."""
    calibration_tokens: AutoInt = Field(default=0, ge=0)
    """Tokens of calibration; auto: 4 for each input of the widest layer, at most 1,048,576."""
    calibration_samples: AutoInt = Field(default=0, ge=0)
    """Training rows used for calibration at the most; auto: as many as have so many tokens."""
    keep: tuple[Literal["auto", "down_proj", "o_proj"], ...] = ("auto",)
    """Layers that keep full precision too: down_proj, o_proj, both, or auto."""
    # A behaviour's rows are mostly shorter, and calibration takes memory by the square of a row's length.
    max_seq_len_tokens: int = Field(default=256, ge=16)
    """Calibration rows are cut to this length."""
    seed: int = 17
    """Of the choice of calibration rows."""
    dry_load: Literal["auto", "on", "off"] = "auto"
    """Have vLLM load a tiny model quantized in the same way first. auto: where that pays; off: never."""


class QuantizeResult(Result):
    """The quantized model, and the proof of what was left alone."""

    artifact: str
    path: str
    bytes: int
    bytes_before: int
    scheme: str
    group_size: int
    full_precision: tuple[str, ...]
    """Tensors that were to stay full precision, as read back from the saved files."""
    quantized_layers: int
    audit: Audit | None = None
    """What the saved tensors say; None where an earlier version quantized."""
    fallbacks: tuple[str, ...] = ()
    """Layers that GPTQ rounded to the nearest step, because their Hessian could not be inverted."""


@dataclass(frozen=True, slots=True)
class QuantizeContext:
    """What is known of what vLLM loads here."""

    dry_loads: tuple[DryLoad, ...] = ()


def inspect_inputs(request: QuantizeRequest, inputs: Inputs) -> QuantizeContext:
    """What earlier dry loads showed."""
    return QuantizeContext(known_dry_loads(inputs.store.home))


def expected_artifact(request: QuantizeRequest, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """The merged model at its new width, with what stays at full precision."""
    merged = artifacts.get("merged")
    if merged is None:
        return None
    request, config = resolved(request, merged)[0], merged.config
    scheme = SCHEMES[request.scheme]
    bytes_ = scheme.weight_bytes(config, scheme.group_of(config, request.group_size), request.keep)
    return expected("quantized", bytes_, **merged.meta)


def plan(request: QuantizeRequest, facts: Facts, context: QuantizeContext | None = None) -> Plan:
    """Price quantizing: the host's RAM is where it dies elsewhere, so that is computed and compared first."""
    merged, dataset = facts.need("merged", "merge"), facts.need("dataset", "critique")
    request, reasons = resolved(request, merged, facts)
    config, tokens, calibrated = merged.config, request.max_seq_len_tokens, _calibration(request, dataset)
    scheme = SCHEMES[request.scheme]
    joined = ", joined and cut to one length" if request.rounding == AUTOROUND else ""
    price = _price(request, facts, merged, dataset)
    machine = facts.machine
    fitting = quantizing_that_fits(
        config,
        seq_len_tokens=tokens,
        free_ram_bytes=machine.memory_room_bytes,
        free_vram_bytes=machine.vram_room_on(1) if facts.trains_on_gpu else None,
        rounding=request.rounding,
        samples=math.ceil(calibrated / tokens),
    )
    short, wanted = "", request.calibration_tokens
    if calibrated < wanted:
        short = f", {calibrated / wanted:.0%} of the {wanted:,} wanted: the rows have no more"
    size_bytes = merged.bytes * scheme.bits / 16  # merged weights are 16 bits each
    return Plan(
        stage="quantize",
        run=facts.run,
        arm="quantized",
        summary=f"quantize the merged model to {request.scheme} {_HOW[request.rounding]}",
        steps=(
            *(
                [f"calibrate on {calibrated:,} tokens{short}; of training rows of up to {tokens} each{joined}"]
                if scheme.smooths or request.rounding != "nearest"
                else []
            ),
            *([_SMOOTHS] if scheme.smooths else []),
            "quantize layer by layer, from file to file; what is finished is kept where the step is cut off",
            f"leave {', '.join((*HEAD, *request.keep))}, routers and shared-expert gates at full precision",
            "audit the saved tensors against the merged model: what had to stay, codes, scales, tokenizer, config",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(merged=merged, dataset=dataset),
        estimate=price,
        writes=(f"a model of {size_bytes / 1e9:.2f} GB and more, by what stays full precision",),
        replaces=("the quantized model of this run",) if "quantized" in facts.artifacts else (),
        refusals=(*contradictions(request, config), *room(price, facts, remedy="a smaller base", fitting=fitting)),
        fitting=fitting,
        notes=tuple(filter(None, [served(scheme, facts)])),
        reasons=dict(reasons),
    )


def _price(request: QuantizeRequest, facts: Facts, merged: Artifact, dataset: Artifact) -> Estimate:
    config, tokens, rates = merged.config, request.max_seq_len_tokens, facts.training_rates
    calibrated = _calibration(request, dataset)
    samples, tokens_a_row = math.ceil(calibrated / tokens), min(tokens, dataset.count("tokens_per_row"))
    scheme, on_gpu = SCHEMES[request.scheme], facts.trains_on_gpu
    seconds, way = _rounding_seconds(request, facts, config, calibrated, tokens_a_row), request.rounding
    ram = quantize_memory_bytes(config, seq_len_tokens=tokens, on_gpu=on_gpu, rounding=way, samples=samples)
    vram = quantize_vram_bytes(config, seq_len_tokens=tokens, rounding=way, samples=samples) if on_gpu else 0
    models = 2 if scheme.smooths else 1  # smoothing writes a whole model in between
    cache = quantize_cache_bytes(config, samples=samples, seq_len_tokens=tokens, rounding=way)
    return estimate(
        "quantize", facts, seconds=seconds, rates=rates, ram_bytes=ram, vram_bytes=vram,
        disk_bytes=merged.bytes * models + cache,
    )  # fmt: skip


def _calibration(request: QuantizeRequest, dataset: Artifact) -> int:
    """Tokens that a resolved request is calibrated on, as far as the data set has them."""
    usual = 0 if request.calibration_tokens else USUAL_SAMPLES
    rows = min(request.calibration_samples or usual or sys.maxsize, dataset.count("train_rows"))
    have = rows * min(request.max_seq_len_tokens, dataset.count("tokens_per_row"))
    return min(request.calibration_tokens or have, have)


def _rounding_seconds(
    request: QuantizeRequest, facts: Facts, config: Mapping[str, object], tokens: int, tokens_a_row: int
) -> Seconds:
    rates, at_once = facts.training_rates, rows_in_a_batch(request.max_seq_len_tokens)
    if request.rounding == "gptq":
        return gptq_seconds(config, rates, tokens=tokens, unquantized=request.keep)
    if request.rounding == AUTOROUND:
        step = min(at_once * request.max_seq_len_tokens, tokens)
        return autoround_seconds(config, rates, tokens=tokens, tokens_a_step=step, on_card=facts.trains_on_gpu)
    smoothed = tokens if SCHEMES[request.scheme].smooths else 0
    return nearest_seconds(config, rates, tokens=smoothed + at_once * tokens_a_row)


def contradictions(request: QuantizeRequest, config: Mapping[str, object]) -> tuple[str, ...]:
    """What of a resolved request a format or a way of rounding cannot do, each with what to set."""
    scheme = SCHEMES[request.scheme]
    sentences = list(filter(None, [wrong_group_size(request.scheme, config, request.group_size)]))
    if not scheme.floats:
        return (*sentences, *_unsearchable(request, config))
    if request.rounding != "nearest":
        way = "AutoRound" if request.rounding == AUTOROUND else "GPTQ"
        sentences.append(f"{scheme.name} rounds every weight by itself, without data, so there is no {way} for it; "
                     "set rounding=nearest")  # fmt: skip
    if request.calibration_samples or request.calibration_tokens:
        sentences.append(f"{scheme.name} takes its scales from the weights alone, so no rows calibrate it; "
                     "leave calibration_samples and calibration_tokens at auto")  # fmt: skip
    return tuple(sentences)


def wrong_group_size(name: str, config: Mapping[str, object], asked: int) -> str:
    """Why a scheme cannot have the group size that is asked for, with what to set; empty where it can."""
    scheme = SCHEMES[name]
    if asked and (scheme.smooths or scheme.floats):
        return f"{name} has a scale for an output channel, which is its format; leave group_size out"
    if asked and group_size_for(config, asked) != asked:
        fitting = group_size_for(config)
        instead = f"try group_size={fitting}" if fitting else "leave it out, for a scale for an output channel"
        return f"group_size={asked} does not divide every layer of this model; {instead}"
    return ""


def _unsearchable(request: QuantizeRequest, config: Mapping[str, object]) -> Iterator[str]:
    """Why a search for a better rounding of integers cannot be made, each with what to set."""
    if request.rounding != AUTOROUND:
        return
    if request.scheme != "W4A16":
        yield (
            f"AutoRound searches for the rounding of 4 bits, where it matters, and {request.scheme} is another format; "
            "set scheme=W4A16, or rounding=gptq"
        )
    if ModelShape.of(config).experts:
        yield "AutoRound is done here with dense models; the experts of a mixture get GPTQ: set rounding=gptq"
    # Before transformers 5 it was called torch_dtype.
    stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    if stored != "bfloat16":
        yield (
            f"AutoRound computes in bfloat16 and would store as much, and the merged model is {stored}; "
            "set rounding=gptq"
        )


def plan_after_dry_load(request: QuantizeRequest, facts: Facts, context: QuantizeContext | None = None) -> Plan:
    """The plan, with the dry load before it where that pays; refused where vLLM is known not to load such a model."""
    planned, merged = plan(request, facts, context), facts.need("merged", "merge")
    decided, config = resolved(request, merged, facts)[0], merged.config
    group = SCHEMES[decided.scheme].group_of(config, decided.group_size)
    return with_dry_load(planned, facts, config, group, context.dry_loads if context else ())


def resolved(
    request: QuantizeRequest, merged: Artifact, facts: Facts | None = None
) -> tuple[QuantizeRequest, Mapping[str, str]]:
    """The request with everything that is `auto` decided, and why each of these has its value; without facts of the
    machine, by the model's size."""
    config = merged.config
    chosen: dict[str, object] = {}
    reasons = {}
    if request.scheme == "auto":
        chosen["scheme"], reasons["scheme"] = _scheme(request, merged, facts)
    scheme = SCHEMES[str(chosen.get("scheme", request.scheme))]
    if "auto" in request.keep:
        rounded = kept_for(scheme.name, config)
        named = (name for name in request.keep if name != "auto")
        chosen["keep"] = tuple(dict.fromkeys((*named, *rounded)))
        reasons["keep"] = (
            "down_proj stays: the gated product before it has outliers that 8-bit activations do not hold"
            if rounded
            else "inputs are rounded to floats, whose steps grow with them, so no layer has to stay for its outliers"
            if scheme.rounds_inputs and scheme.floats
            else "weights alone lose bits, so no layer has to stay for its inputs"
        )
    if scheme.floats and request.rounding == "gptq" and "rounding" not in request.model_fields_set:
        chosen["rounding"] = "nearest"
        reasons["rounding"] = f"{scheme.name} rounds every weight by itself, without data: there is no GPTQ for it"
    shape = ModelShape.of(config)
    usual = calibration_tokens(shape)
    if scheme.floats and request.calibration_tokens == usual:  # what an edited plan of integers holds, nobody said
        chosen["calibration_tokens"] = 0
    if not (scheme.floats or request.calibration_tokens or request.calibration_samples):
        chosen["calibration_tokens"] = usual
        why = f"{TOKENS_AN_INPUT} for each of the {shape.widest_input:,} inputs of the widest layer"
        reasons["calibration_tokens"] = why
    return request.model_copy(update=chosen), reasons


def _scheme(request: QuantizeRequest, merged: Artifact, facts: Facts | None) -> Choice:
    parameters = merged.count("parameters")
    if request.rounding == AUTOROUND:
        return Choice("W4A16", "AutoRound searches for the rounding of 4 bits")
    if request.group_size:
        return Choice("W4A16", "group_size is set, and only 4 bits have scales of groups")
    if facts is None:
        return scheme_by_size(parameters)
    asked = "rounding" in request.model_fields_set and request.rounding != "nearest"
    integers = asked or bool(request.calibration_samples or request.calibration_tokens)
    return scheme_for(merged.config, parameters, facts, request.keep, integers=integers)


STAGE = Stage(
    "quantize", QuantizeRequest, QuantizeResult, plan_after_dry_load, inspect_inputs, expected_artifact,
    settable=("scheme",),
    env=TORCH_ENV,
    lasting=("scheme", "rounding", "keep", "group_size", "calibration_samples", "calibration_tokens",
            "max_seq_len_tokens"),
    follows={"rounding": "scheme"},
    headline=("scheme", "group_size", "bytes", "bytes_before", "quantized_layers"),
)  # fmt: skip
