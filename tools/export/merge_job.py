"""merge at work: W + scale · B·A, one tensor at a time in fp32, shard by shard; then proven against base + adapter:
the saved tensors by their audit, each weight by what peft adds to it, the whole model by its logits, layer by layer.

No model is loaded: a shard is read, summed and written as bytes, and a layer is read while it computes, so 70B merges
in the memory of its largest matrix. The disk is waited for at the end alone: it writes while shards are summed and
proven. A shard that reached it is noted, and is not made again. A mixture's fused experts are merged in the same way,
each into the tensors that are stored of it.

Refused, because it cannot be mapped to weights of the base: biases, DoRA, modules_to_save, initialisations that
changed the base.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write, read_manifest, sha256_file, sync_folder
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.audit_merged import audit_merged
from tunesmith.tools.export.expert_updates import Update, expert_updates
from tunesmith.tools.export.logit_proof_job import behaviour_rows, compare_logits
from tunesmith.tools.export.lora_update import lora_scale, of_experts
from tunesmith.tools.export.merge import ONTO_16_BITS, MergeRequest, MergeResult, trained_on_nf4
from tunesmith.tools.machine.memory_left import RESERVE_BYTES, memory_left_bytes
from tunesmith.tools.models.memory_math import merge_memory_bytes
from tunesmith.tools.models.model_files import copy_beside_weights
from tunesmith.tools.models.tensor_file import ADAPTER_NAME, TensorFileWriter, read_header, read_headers, weight_files

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[float, float, str], None]

_GIB = 1 << 30
_SUMMED_BYTES = 4 << 20
"""Of a weight in fp32, which are summed at once: they stay in the processor's cache, and threads have enough to do."""


def run(job: Job[MergeRequest]) -> MergeResult:
    """Merge the adapter into the base after both were hashed again, compare, and publish the merged model."""
    base, adapter = job.verified("base"), job.verified("adapter")
    out_dir = job.dir / "merged"
    measured: dict[str, Any] = {}
    left_out = ""
    dataset = job.store.ancestor(adapter, "dataset")
    rows = behaviour_rows(job.unchanged(dataset).path) if dataset and dataset.path.exists() else []
    with ThreadPoolExecutor(1) as disk:
        written: list[Future[None]] = []
        if job.sealed(out_dir) is None:
            written = merge_adapter(base.path, adapter.path, out_dir, job.progress, disk)
        job.progress(0, 1, "auditing the saved tensors")
        audit = audit_merged(out_dir, base.path, adapter.path, against=base.id)
        _refuse_faults(audit, out_dir)
        _stop_where_memory_ends("the comparison of logits", len(weight_files(out_dir)))
        try:
            measured = compare_logits(base.path, adapter.path, out_dir, job.progress, rows=rows)
        except BadInput as error:  # a layout that is not known; the audit has proven the tensors
            left_out = f"logits were not compared: {error}; the saved tensors were proven one by one"
            job.log(left_out)
        job.progress(1, 1, "waiting for the disk")
        for one in written:
            one.result()
    job.log(f"merged against base + adapter: {measured}; {audit.summary}")
    if trained_on_nf4(job.store, adapter):
        job.log(ONTO_16_BITS)
    artifact = job.publish("merged", out_dir, meta={**dict(base.meta), "adapter": adapter.id, **measured})
    return MergeResult(
        artifact=artifact.id, path=str(out_dir), bytes=artifact.bytes, audit=audit, logits_left_out=left_out, **measured
    )


def _refuse_faults(audit: Audit, out_dir: Path) -> None:
    """Raises StepFailed for a model that fails its audit, after its folder is gone: nobody may go on from it."""
    if audit.refusal:
        shutil.rmtree(out_dir)
        raise StepFailed(f"{audit.refusal}; it was removed, merge again")


def merge_adapter(
    base_dir: Path, adapter_dir: Path, out_dir: Path, progress: Progress, disk: ThreadPoolExecutor | None = None
) -> list[Future[None]]:
    """Write the merged model into `out_dir` in the base's own sharding and precision; continues where it was cut off.

    With a `disk`, the one thread of that brings the shards there, and what it has yet to do is returned. Raises
    StepFailed for an adapter that is not a plain sum on weights of this base, before the start where memory would not
    do, and between tensors where it runs low: finished shards are kept.
    """
    if disk is None:
        with ThreadPoolExecutor(1) as own:
            written = merge_adapter(base_dir, adapter_dir, out_dir, progress, own)
        for one in written:
            one.result()
        return []
    config = json.loads((adapter_dir / "adapter_config.json").read_text())
    _refuse_unmergeable(config)
    _need_room(base_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    whole = _Whole(base_dir, adapter_dir, out_dir)
    names = read_headers(weight_files(base_dir)).keys()
    updates = expert_updates(base_dir, adapter_dir, names) if config.get("target_parameters") else {}
    updates |= load_updates(adapter_dir, config)
    if missing := sorted(updates.keys() - names):
        raise StepFailed(
            f"{len(missing)} updates have no weight in this base (the first: {missing[0]}): another base's?"
        )
    shards, written = weight_files(base_dir), []
    for number, shard in enumerate(shards):
        progress(number, len(shards), f"merging {shard.name}")
        if shard.name not in whole.names:
            where = f"shard {number + 1} of {len(shards)}"
            _merge_shard(shard, updates, out_dir / shard.name, where, finished=number)
            written.append(disk.submit(whole.add, out_dir / shard.name))
    progress(len(shards), len(shards), "merged")
    copy_beside_weights(base_dir, out_dir)
    return written


def load_updates(adapter_dir: Path, config: Mapping[str, object]) -> dict[str, Update]:
    """Weight name in the base → its update, with rank and alpha patterns and rank-stabilised scaling respected.

    Not of fused experts, whose factors are those of many weights.
    """
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    with safe_open(adapter_dir / ADAPTER_NAME, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  not a dict
            tensors[name] = file.get_tensor(name)
    updates = {}
    for name in sorted(tensors):
        if not name.endswith(".lora_A.weight"):
            if not name.endswith(".lora_B.weight"):
                raise StepFailed(f"the adapter holds {name}, which is no low-rank factor; deploy it unmerged instead")
            continue
        stem = name.removesuffix(".lora_A.weight")
        module = stem.removeprefix("base_model.model.")
        if of_experts(module):
            continue
        a, b = tensors[name], tensors[f"{stem}.lora_B.weight"]
        updates[f"{module}.weight"] = Update(a, b, lora_scale(config, module, a.shape[0]))
    return updates


class _Whole:
    """The shards of a merge that are on the disk, noted beside its folder with what it is made from.

    What lies in the folder beside them, half done or of another adapter or base, is removed first.
    """

    def __init__(self, base_dir: Path, adapter_dir: Path, out_dir: Path) -> None:
        manifest = read_manifest(base_dir)
        self._source_digests = {
            "base": manifest["sha256"] if manifest else None,
            "adapter": sha256_file(adapter_dir / ADAPTER_NAME),
            "config": sha256_file(adapter_dir / "adapter_config.json"),
        }
        self._path = out_dir.with_name(f".{out_dir.name}.made-from.json")
        known = json.loads(self._path.read_text()) if self._path.exists() else {}
        whole = known.pop("whole", []) if isinstance(known, dict) else []
        self.names: list[str] = [name for name in whole if (out_dir / name).is_file()]
        if known != self._source_digests:
            self.names = []
            self._write()
        for file in out_dir.iterdir():
            if file.name not in self.names:
                file.unlink()  # half written, or of another adapter or base

    def add(self, shard: Path) -> None:
        """Bring a shard to the disk, then note it."""
        with shard.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(shard.parent)
        self.names.append(shard.name)
        self._write()

    def _write(self) -> None:
        atomic_write(self._path, json.dumps({**self._source_digests, "whole": self.names}))


def _refuse_unmergeable(config: Mapping[str, object]) -> None:
    odd = {
        "peft_type": config.get("peft_type") != "LORA",
        "use_dora": bool(config.get("use_dora")),
        "bias": config.get("bias", "none") != "none" or bool(config.get("lora_bias")),
        "modules_to_save": bool(config.get("modules_to_save")),
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")),
        "trainable_token_indices": bool(config.get("trainable_token_indices")),
        "init_lora_weights": config.get("init_lora_weights")
        not in (True, False, None, "gaussian", "orthogonal", "eva"),
    }
    if unmergeable := [name for name, is_odd in odd.items() if is_odd]:
        raise StepFailed(
            f"the adapter's {unmergeable[0]}={config.get(unmergeable[0])!r} is more than a low-rank sum; deploy "
            "the adapter itself"
        )


def _need_room(base_dir: Path) -> None:
    """Raises StepFailed, with the numbers, where merging and its proof would not fit into what is left."""
    need, left = merge_memory_bytes(json.loads((base_dir / "config.json").read_text())), memory_left_bytes()
    if need > left:
        raise StepFailed(
            f"needs {need / _GIB:.1f} GiB of RAM and swap, {left / _GIB:.1f} GiB free; stop another program or start "
            "in a larger control group, or deploy the adapter itself"
        )


def _stop_where_memory_ends(where: str, finished: int) -> None:
    if (left := memory_left_bytes()) < RESERVE_BYTES:
        raise StepFailed(
            f"stopped at {where}: {left >> 20} MiB of memory are left; finished shards are kept ({finished}): stop "
            "another program, or start in a larger control group, and resume"
        )


def _merge_shard(source: Path, updates: Mapping[str, Update], target: Path, where: str, *, finished: int) -> None:
    """Sum and write one shard; a tensor is written while the next is summed."""
    import torch
    from safetensors import safe_open

    specs = list(read_header(source).items())
    with (
        safe_open(source, framework="pt") as file,
        TensorFileWriter(target, specs, synced=False) as writer,  # `_Whole.add` syncs it before it notes it
        ThreadPoolExecutor(1) as pool,
    ):
        writing: Future[None] | None = None
        for name, _spec in specs:
            _stop_where_memory_ends(where, finished)
            weight = file.get_tensor(name)
            if name in updates:
                weight = _sum(weight, updates[name], name)
            # As bytes: numpy knows no bfloat16.
            stored = weight.contiguous().reshape(-1).view(torch.uint8).numpy().data
            if writing:
                writing.result()
            writing = pool.submit(writer.write, name, stored)
        if writing:
            writing.result()


def _sum(weight: Tensor, update: Update, name: str) -> Tensor:
    """Summed in fp32, a few rows at a time, and rounded once to the weight's own type."""
    import torch

    needed = (*update.b.shape[:-1], update.a.shape[-1])
    if weight.shape != needed:
        raise StepFailed(f"{name} is {tuple(weight.shape)}, its update {needed}")
    if not weight.is_floating_point():
        raise StepFailed(f"{name} is stored as {weight.dtype}, which no update can be added to; deploy the adapter")
    merged = torch.empty_like(weight)
    if weight.ndim > 2:
        for expert, one in enumerate(weight):
            merged[expert] = _sum(one, Update(update.a[expert], update.b[expert], update.scale), name)
        return merged
    a, b = update.a.float(), update.b.float()
    at_once = max(1, _SUMMED_BYTES // (4 * weight.shape[1]))  # four bytes a value in fp32
    for start in range(0, len(weight), at_once):
        rows = slice(start, start + at_once)
        merged[rows] = weight[rows].float().addmm_(b[rows], a, alpha=update.scale)
    return merged
