"""A dry load at work: a tiny model of an architecture, quantized as the real one will be, and loaded by vLLM.

Random weights from the model's own config; its tokenizer. What vLLM refuses here it would refuse after an hour. A tiny
model that cannot be made, or whose server ends for want of memory, proves nothing and refuses nothing.
"""

from __future__ import annotations

import math
import shutil
import time
from asyncio import run as run_async
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.export.audit import CARRIED
from tunesmith.tools.export.dry_load import (
    TINY_KV_BYTES,
    DryLoad,
    dry_load_key,
    keep_dry_load,
    known_dry_loads,
    tiny_config,
)
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.machine.gpus import measure_gpus, serves_on_cpu
from tunesmith.tools.models.memory_math import server_memory
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.budget import placed
from tunesmith.tools.serving.model_server import serve
from tunesmith.tools.serving.scoring import score_prompt
from tunesmith.tools.serving.spec import ServerSpec

if TYPE_CHECKING:
    from torch import Tensor

    Progress = Callable[[float, float, str], None]
    Quantizer = Callable[[Sequence[Mapping[str, Tensor]], Path, Path, QuantizeRequest, Progress], object]
    """What quantizes the real model: batches of token ids, its folder, the new one, how, and who is told of it."""

_ROWS, _TOKENS = 4, 64
"""Of calibration: what comes of it has to load, not to be good."""
_CONTEXT_TOKENS = 512
"""Many times what it is asked, and a cache that is made in a moment."""
_NAME = "dry-load"
_NO_PROOF = (
    "out of memory", "GiB of", "Cannot allocate memory", "not ready after", "MemoryError", "SIGKILL",
    "its log is empty",
)  # fmt: skip
"""Of a server that ended for another reason than that it does not know the model: for want of memory, or by others."""


def refuse_unservable(
    job: Job[QuantizeRequest], model_dir: Path, config: Mapping[str, object], group: int, quantize: Quantizer
) -> None:
    """Try it, unless it is known. Raises StepFailed where vLLM refuses the tiny model."""
    request, program = job.request, job.vllm
    if request.dry_load != "on" or program is None:
        return
    card = None if serves_on_cpu(program) else chosen_gpu(measure_gpus())
    key = dry_load_key(
        config, request.scheme, group, request.keep, program=program, device=card.name if card else "cpu"
    )
    known = next((one for one in known_dry_loads(job.home) if one.key == key), None)
    if known is None:
        known = _run_dry_load(job, model_dir, config, group, DryLoad(key=key, served=True), quantize)
    if known.why_not:
        raise StepFailed(known.why_not)


def _run_dry_load(
    job: Job[QuantizeRequest],
    model_dir: Path,
    config: Mapping[str, object],
    group: int,
    hoped: DryLoad,
    quantize: Quantizer,
) -> DryLoad:
    """What came of it, kept for the plans to come where it proves anything."""
    started, folder = time.monotonic(), job.dir / _NAME
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was cut off
    try:
        job.progress(0, 0, "dry load: a tiny model of this architecture is quantized")
        whole, batch = make_tiny(model_dir, config, folder / "whole", group)
        quantized_dir = folder / "quantized"
        tiny = QuantizeRequest(scheme=job.request.scheme, group_size=group, keep=job.request.keep)
        quantize([batch], whole, quantized_dir, tiny, _quiet)
    # An architecture that does not take small sizes: that says nothing of the real model.
    except (TunesmithError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        job.log(f"no dry load: a tiny model could not be made ({type(error).__name__}: {str(error)[:200]})")
        return hoped
    try:
        _load(job, quantized_dir)
        outcome = hoped
    except StepFailed as error:
        job.log(f"dry load: {error}")
        if any(words in str(error) for words in _NO_PROOF):
            return hoped
        refusal = str(error).removeprefix("vLLM ended before it was ready: ").partition("; its log is")[0]
        outcome = hoped.model_copy(
            update={
                "served": False,
                "refusal": refusal[:300].rstrip(": "),  # a plan quotes it
                "by_transformers": loads_in_transformers(quantized_dir),
            }
        )
    seconds = round(time.monotonic() - started, 1)
    outcome = outcome.model_copy(update={"seconds": seconds})
    keep_dry_load(job.home, outcome)
    job.log(f"dry load: {outcome.key.architecture} at {outcome.key.scheme} is {'' if outcome.served else 'not '}served "
            f"({seconds:.0f} s)")  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _quiet(done: float, total: float, note: str) -> None:
    """Of a tiny model nobody follows the layers."""


def make_tiny(
    model_dir: Path, config: Mapping[str, object], folder: Path, group: int
) -> tuple[Path, Mapping[str, Tensor]]:
    """A tiny model of the architecture in `folder`, with random weights, and a batch of random tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(17)  # the same model each time: a refusal can be looked into
    described = AutoConfig.for_model(**tiny_config(config, group))
    AutoModelForCausalLM.from_config(described, dtype=torch.bfloat16).save_pretrained(folder)
    for name in CARRIED:
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, folder / name)
    ids = torch.randint(0, described.get_text_config().vocab_size, (_ROWS, _TOKENS))
    return folder, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _load(job: Job[QuantizeRequest], quantized_dir: Path) -> None:
    """Serve it, and have it read a few tokens. Raises StepFailed, with the server's own words."""
    assert job.vllm is not None
    size = sum(file.stat().st_size for file in quantized_dir.glob("*.safetensors"))
    needed = server_memory(size, kv_bytes_per_token=TINY_KV_BYTES, context_tokens=_CONTEXT_TOKENS)
    spec = ServerSpec(
        # Four: one request is asked, and vLLM captures and warms up for each size.
        model_dir=str(quantized_dir), served_name=_NAME, max_model_len_tokens=_CONTEXT_TOKENS, max_num_seqs=4,
        tool_parser="", **placed(job.vllm, needed)._asdict(),
    )  # fmt: skip
    server = serve(job, spec, vllm=job.vllm, log="dry-load.log", note="dry load: vLLM is starting")
    try:
        # any tokens: that they are computed is all
        scored = run_async(score_prompt(server, _NAME, [5, 6, 7, 8, 9, 10]))
        if not all(map(math.isfinite, scored)):
            raise StepFailed("vLLM loads it and computes no finite number")
    finally:
        servers.stop(server)


def loads_in_transformers(model_dir: Path) -> bool:
    """Whether transformers loads a quantized model and computes finite numbers with it."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, local_files_only=True)
        with torch.inference_mode():
            return bool(model(input_ids=torch.tensor([[5, 6, 7]])).logits.isfinite().all())
    # Each scheme that transformers does not know ends somewhere else in it, with an error of another kind.
    except (BadInput, RuntimeError, ValueError, KeyError, TypeError, AttributeError, ImportError, OSError):
        return False
