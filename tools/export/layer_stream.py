"""llm-compressor's sequential pipeline over a model whose layers are in memory one at a time.

The library traces the model into parts of one decoder layer each, calibrates them and quantizes them, as its own
pipeline does. Around that, a layer is read from its files before, and packed, written, synced and dropped after; what
the layers hand on lies on disk. So the peak does not depend on the depth, and a step that was killed goes on with the
layer that it had reached: what that layer needs are its weights and its inputs, and both are files.

llm-compressor's own way from a disk (`load_context`, `oneshot`) gives the same tensors at 1.04 times the peak, and
would spare this module and two more. But a kill or a stop loses all layers, not one; what it leaves stops the next
attempt; and a mixture does not load without torchvision (`tests/bench/offloaded.py`, docs/measurements.md).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.tools.core.settled import settled_objects
from tunesmith.tools.export.activation_cache import ActivationCache, Values
from tunesmith.tools.export.streamed_weights import StreamedWeights, copy_shard, shard_paths, write_shard
from tunesmith.tools.models.tensor_file import write_index

if TYPE_CHECKING:
    from llmcompressor.modifiers import Modifier
    from llmcompressor.pipelines.sequential.helpers import Subgraph
    from torch import nn
    from transformers import PreTrainedModel

Watch = Callable[[int, int], None]
"""Called before every batch, with the number of the layer from 1 and the number of layers."""


class Carried(NamedTuple):
    """What a modifier remembers from one layer to the next, beside what the layers hand on: tensors in lists."""

    get: Callable[[], object]
    put: Callable[[object], None]


class ModelPart(NamedTuple):
    """A piece of the traced model, and where in the model it is."""

    graph: Subgraph
    layers: tuple[str, ...]
    """Its decoder layers; usually one, and none in what comes before them."""
    modules: tuple[str, ...]
    """These, and what else has to be loaded for it."""


def stream_layers(
    weights: StreamedWeights,
    batches: Sequence[Values],
    modifiers: Sequence[Modifier],
    out_dir: Path,
    cache_dir: Path,
    *,
    hand_on_changed: bool,
    watch: Watch,
    carried: Carried | None = None,
    after_layer: Callable[[], None] = lambda: None,
) -> None:
    """Apply the modifiers layer by layer and write the model into `out_dir`: weights and index, without its config.

    With `hand_on_changed` a layer is calibrated on what the changed layers before it compute, else on what it was given
    in its own calibration; that saves a pass where a change does not alter what is computed. What is `carried`
    is kept with what a layer hands on. `after_layer` is called before a changed layer is written. Goes on where it was
    cut off, as far as `out_dir` and `cache_dir` hold what it had done. Raises whatever `watch` raises.
    """
    from llmcompressor.core import LifecycleCallbacks, active_session
    from llmcompressor.modeling.moe.context import moe_calibration_context
    from llmcompressor.utils.helpers import DisableQuantization, calibration_forward_context

    model, session = weights.model, active_session()
    session.reset()  # one for the whole process: an earlier pass (smoothing) left its recipe in it
    with ExitStack() as stack:
        stack.enter_context(moe_calibration_context())
        session.initialize(model=model, start=-1, recipe=list(modifiers), calib_data=batches)  # -1: as `oneshot`
        parts = parts_of(weights, batches[0])
        stack.enter_context(settled_objects())
        layers = [layer for part in parts for layer in part.layers]
        shards = list(shard_paths(out_dir, len(layers) + 1))
        if not shards[0].exists():
            copy_shard(shards[0], weights.outside(layers))
        cache = ActivationCache(cache_dir, batches, [_outputs(part.graph) for part in parts],
                                [part.graph.input_names for part in parts])  # fmt: skip
        LifecycleCallbacks.calibration_start()
        stack.enter_context(calibration_forward_context(model))
        stack.enter_context(DisableQuantization(model))
        session.state.loss_masks, session.state.sequential_prefetch = None, False  # as the library's pipeline does
        done = sum(len(part.layers) for part in parts[: cache.reached()])
        if carried and cache.reached():
            carried.put(cache.carried(cache.reached() - 1))
        for number in range(cache.reached(), len(parts)):
            at = max(1, done + len(parts[number].layers))
            _work(weights, parts, number, cache, len(batches), hand_on_changed, partial(watch, at, len(layers)))
            for layer in parts[number].layers:
                done += 1
                after_layer()
                write_shard(shards[done], weights.tensors(layer))
            if number + 1 < len(parts):
                if carried:
                    cache.keep(number, carried.get())
                cache.finish(number)
            for module in parts[number].modules:
                weights.drop(module)
            let_go(weights.device.type)
        LifecycleCallbacks.calibration_end()
    session.finalize()
    write_index(out_dir, shards)


def parts_of(weights: StreamedWeights, sample: Values) -> list[ModelPart]:
    """The model in the pieces that llm-compressor's own pipeline would work on."""
    from compressed_tensors.utils import match_named_modules
    from llmcompressor.args import DatasetArguments
    from llmcompressor.pipelines.sequential.helpers import trace_subgraphs
    from llmcompressor.utils.pytorch.module import infer_sequential_targets
    from llmcompressor.utils.transformers import get_embeddings

    model = weights.model
    targets = infer_sequential_targets(model, None)
    layers = {name for name, _ in match_named_modules(model, targets)}
    graphs = trace_subgraphs(model, dict(sample), targets, DatasetArguments().tracing_ignore)
    embeddings, head = get_embeddings(model)
    beside = [name for name in weights.owners_outside(layers) if model.get_submodule(name) is not head]
    after = [name for name in beside if model.get_submodule(name) is not embeddings]
    parts = []
    for graph in graphs:
        called = dict.fromkeys(str(node.target) for node in graph.graph.find_nodes(op="call_module"))
        own = [name for name in called if name in layers]
        more = (after if graph is graphs[-1] else []) if own else beside
        parts.append(ModelPart(graph, tuple(own), (*own, *more)))
    return parts


def _outputs(graph: Subgraph) -> list[str]:
    """What a piece hands on; the last one hands on nothing that is needed."""
    [output] = graph.graph.find_nodes(op="output")
    [returned] = output.args
    return [str(name) for name in returned] if isinstance(returned, dict) else []


def _work(
    weights: StreamedWeights,
    parts: Sequence[ModelPart],
    number: int,
    cache: ActivationCache,
    batches: int,
    hand_on_changed: bool,
    watch: Callable[[], None],
) -> None:
    """Calibrate a piece, change its layers, pack them, and keep what it hands on."""
    from llmcompressor.core import LifecycleCallbacks, active_session
    from llmcompressor.modifiers.utils.hooks import HooksMixin

    part, last = parts[number], number + 1 == len(parts)
    for module in part.modules:
        weights.load(module)

    def run(*, keep: bool) -> None:
        for batch in range(batches):
            watch()
            active_session().state.current_batch_idx = batch
            outputs = part.graph.forward(weights.model, **cache.read(batch, part.graph.input_names, weights.device))
            if keep and not last:
                cache.write(number, batch, outputs)

    if not part.layers:
        run(keep=True)
        return
    run(keep=not hand_on_changed)
    layers = [weights.model.get_submodule(layer) for layer in part.layers]
    kinds = {parameter: parameter.dtype for layer in layers for parameter in layer.parameters()}
    LifecycleCallbacks.sequential_epoch_end(part.graph.submodules(weights.model))
    for parameter, kind in kinds.items():  # AutoRound computes in fp32 where the processor has no bf16
        parameter.data = parameter.data.to(kind)
    if hand_on_changed and not last:
        with HooksMixin.disable_hooks():
            run(keep=True)
    for layer in layers:
        _pack(layer)


def let_go(device: str) -> None:
    """Free what a piece left in cycles, so that the next one starts from the same size."""
    gc.collect()
    if device == "cpu":
        from tunesmith.tools.cpu.freed_memory import return_freed_memory

        return_freed_memory()


def _pack(layer: nn.Module) -> None:
    """Let go of a layer's observers, and store its quantized weights as codes."""
    from compressed_tensors.compressors import compress_module
    from compressed_tensors.quantization.utils import is_module_quantized
    from llmcompressor.modifiers.quantization.calibration import freeze_module_quantization

    for module in layer.modules():
        if is_module_quantized(module):
            freeze_module_quantization(module)
            compress_module(module)


def describe_quantization(model: PreTrainedModel, folder: Path) -> None:
    """Add to the config in `folder` how a model was quantized, as llm-compressor does when it saves; and its recipe."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationStatus
    from llmcompressor.core import active_session

    compressor = ModelCompressor.from_pretrained_model(model)
    if compressor.quantization_config is not None:
        compressor.quantization_config.quantization_status = QuantizationStatus.COMPRESSED
    compressor.update_config(str(folder))
    active_session().lifecycle.recipe.yaml(file_path=str(folder / "recipe.yaml"))
