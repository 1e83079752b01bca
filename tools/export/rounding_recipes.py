"""What llm-compressor is told to do to a model, in order: its modifiers for each scheme and way of rounding."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.files import atomic_write
from tunesmith.tools.machine.device import computes_on_cpu
from tunesmith.tools.models.full_precision import full_precision_layers
from tunesmith.tools.models.memory_math import matrices_at_once, rows_in_a_batch
from tunesmith.tools.models.rounding_terms import AUTOROUND, ROUNDING_STEPS, Rounding
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.shape import ModelShape

if TYPE_CHECKING:
    from llmcompressor.modifiers import Modifier

    from tunesmith.tools.export.layer_stream import Carried

SMOOTHING, QUANTIZING = "smoothing", "quantizing"
# Norms that smoothing may scale, by `model_type`: every layer that reads one is scaled back, so the model computes the
# same. A norm of (1 + weight) would not; nor may a router read smoothed activations, so of a mixture attention alone.
_ATTENTION_NORM = (["re:.*self_attn.q_proj", "re:.*self_attn.k_proj", "re:.*self_attn.v_proj"], "re:.*input_layernorm")
_MLP_NORM = (["re:.*mlp.gate_proj", "re:.*mlp.up_proj"], "re:.*post_attention_layernorm")
SMOOTHED: Mapping[str, Sequence[tuple[list[str], str]]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), (_ATTENTION_NORM, _MLP_NORM)),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe"), (_ATTENTION_NORM,)),
}
# Measured on the bundled model: KL to the merged one 0.016 a token; 0.019 at 0.5, 0.034 unsmoothed.
_SMOOTHING_STRENGTH = 0.8


def rounding_of(scheme: str, rounding: Rounding) -> Rounding:
    """How the weights of a scheme are rounded: floats to the nearest step, whatever was asked for integers."""
    return rounding if not SCHEMES[scheme].floats else "nearest"


def recipes(
    scheme: str,
    group_size: int,
    config: Mapping[str, object],
    keep: Sequence[str] = (),
    rounding: Rounding = "gptq",
    row_tokens: int = 256,  # as quantize cuts its rows
) -> Iterator[tuple[str, list[Modifier]]]:
    """What is done to the model, in order: a word for the progress, and the modifiers.

    `row_tokens` is the length of a calibration row: AutoRound takes as many of them at once as a batch has.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    kind, inputs = SCHEMES[scheme], None
    if kind.smooths:
        # each token's own scale, as vLLM's W8A8 kernels want it
        inputs = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
        if mappings := SMOOTHED.get(str(config.get("model_type"))):
            yield SMOOTHING, [SmoothQuantModifier(smoothing_strength=_SMOOTHING_STRENGTH, mappings=list(mappings))]
    if kind.preset:
        group = preset_name_to_scheme(kind.preset, ["Linear"])
    else:
        shared = {"strategy": "group", "group_size": group_size} if group_size else {"strategy": "channel"}
        weights = QuantizationArgs(num_bits=kind.bits, type="int", symmetric=True, **shared)
        group = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    layers = {"config_groups": {"group_0": group}, "ignore": list(full_precision_layers(config, keep))}
    yield QUANTIZING, _rounding(layers, config, rounding_of(scheme, rounding), row_tokens)


def _rounding(
    layers: Mapping[str, object], config: Mapping[str, object], rounding: Rounding, row_tokens: int
) -> list[Modifier]:
    from llmcompressor.modifiers.quantization import QuantizationModifier

    if rounding == "gptq":
        from llmcompressor.modifiers.gptq import GPTQModifier

        # Layers of one shape and block are quantized together: the column loop is Python, its cost is per call.
        return [GPTQModifier(**layers, batched_quantization=matrices_at_once(ModelShape.of(config)))]
    if rounding == AUTOROUND:
        from llmcompressor.modifiers.autoround import AutoRoundModifier

        logging.getLogger("autoround").setLevel(logging.ERROR)  # hints about its own reader, four lines a layer
        at_once = rows_in_a_batch(row_tokens)
        return [AutoRoundModifier(**layers, iters=ROUNDING_STEPS, batch_size=at_once, enable_torch_compile=False)]
    return [QuantizationModifier(**layers)]


def carried_by(recipe: Sequence[Modifier]) -> Carried | None:
    """What AutoRound remembers of a layer for the next one: what the rounded layers make of the rows; else None."""
    from tunesmith.tools.export.layer_stream import Carried

    [modifier, *_] = recipe
    if not hasattr(modifier, "_q_input"):  # private: only AutoRound's modifier has one
        return None

    def put(value: object) -> None:
        # Its outputs of the last layer: a killed step goes on from them, and llm-compressor has no call for that.
        modifier._q_input = value

    return Carried(lambda: modifier._q_input, put)


def note_fallbacks(recipe: Sequence[Modifier], file: Path) -> None:
    """Add to `file` the matrices that GPTQ has rounded to the nearest step because it could not invert their Hessian.

    llm-compressor says so in its log alone, and forgets the names at its end.
    """
    known = fallbacks_in(file)
    names = {name for modifier in recipe for name in getattr(modifier, "_rtn_fallback_module_names", ())}
    if not names <= {*known}:
        atomic_write(file, json.dumps(sorted({*known, *names})))


def fallbacks_in(file: Path) -> tuple[str, ...]:
    """The names that were noted, over every attempt at the same work."""
    return tuple(json.loads(file.read_bytes())) if file.is_file() else ()


@contextmanager
def unpinned() -> Iterator[None]:
    """Without pinned memory on a CPU alone, where torch refuses it: a cache of llm-compressor asks for it."""
    from compressed_tensors.utils import patch_attr
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not computes_on_cpu():
        yield
        return
    with patch_attr(IntermediatesCache, "pin_memory", lambda *_: None):
        yield
