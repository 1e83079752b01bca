"""GPTQ to W4A16 beside llm-compressor's own example: memory, time and perplexity, on the same tokens.

Each side is a process of its own, one after the other on one machine. Goals: peak memory at most 0.45 times theirs,
time no longer than theirs, memory that grows by at most 2 % of a layer per layer, perplexity within 0.5 % of theirs.

TUNESMITH_BENCH_MODEL names the model's folder; without one the bundled 1.5B is fetched and converted first. The text is
Python's own manual. The figures are printed and written to `--save`, after each side.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
PEAK, TIME, SLOPE, PERPLEXITY = 0.45, 1.0, 0.02, 0.005
HELD_OUT = 16
_SAMPLE_S = 0.05

if TYPE_CHECKING:
    from torch import Tensor

Figures = dict[str, Any]
"""One side's, or what follows from both, as they are saved."""


class Side(NamedTuple):
    """What one process took."""

    seconds: float
    cpu_seconds: float
    """Of all threads, kernel included: what a busy machine does not change much."""
    peak_bytes: int
    """The kernel's own figure, mapped files included."""
    layers: list[int]
    """The most memory, in bytes, while each layer was worked on."""


class Memory:
    """The resident size of this process, sampled; the most of it in every layer."""

    def __init__(self) -> None:
        import psutil

        self._process, self._layer, self.peaks = psutil.Process(), -1, dict[int, int]()
        threading.Thread(target=self._sample, daemon=True).start()

    def reached(self, layer: int) -> None:
        self._layer = layer

    def _sample(self) -> None:
        while True:
            layer, used = self._layer, self._process.memory_info().rss
            self.peaks[layer] = max(self.peaks.get(layer, 0), used)
            time.sleep(_SAMPLE_S)

    def side(self, seconds: float) -> Side:
        layers = [self.peaks[layer] for layer in sorted(self.peaks) if layer >= 0]
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Side(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, layers)


def tokens(model: Path, samples: int, length: int) -> tuple[list[list[int]], list[list[int]]]:
    """Calibration samples, and held-out ones of the same length that come after them."""
    from pydoc_data import topics

    from transformers import AutoTokenizer

    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    ids = AutoTokenizer.from_pretrained(model)(text)["input_ids"]
    rows = [ids[at : at + length] for at in range(0, (samples + HELD_OUT) * length, length)]
    assert len(rows[-1]) == length, "the manual is too short for so many tokens"
    return rows[:samples], rows[samples:]


def theirs(model_dir: Path, out: Path, rows: list[list[int]]) -> Side:
    """As in llm-compressor's examples/quantization_w4a16."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    memory, started = Memory(), time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: memory.reached(number))
    oneshot(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(model_dir),
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]),
        max_seq_length=len(rows[0]),
        num_calibration_samples=len(rows),
    )
    memory.reached(-1)
    model.save_pretrained(out, save_compressed=True)
    return memory.side(time.perf_counter() - started)


def ours(model_dir: Path, out: Path, rows: list[list[int]]) -> Side:
    """What the worker of `quantize` does between its plan and its audit."""
    import llmcompressor  # noqa: F401  as theirs, loaded before the clock starts
    import torch

    from tunesmith.tools.export.calibration import calibration_batch
    from tunesmith.tools.export.quantize import QuantizeRequest
    from tunesmith.tools.export.quantize_job import quantize_with
    from tunesmith.tools.models.memory_math import rows_in_a_batch

    memory, started = Memory(), time.perf_counter()
    several = rows_in_a_batch(len(rows[0]))
    batches = [calibration_batch(rows[at : at + several], 0) for at in range(0, len(rows), several)]
    assert all(isinstance(batch["input_ids"], torch.Tensor) for batch in batches)

    def progress(done: float, total: float, note: str) -> None:
        memory.reached(int(done) if " layer " in note else -1)

    quantize_with(batches, model_dir, out, QuantizeRequest(scheme="W4A16", group_size=128, keep=()), progress)
    return memory.side(time.perf_counter() - started)


def perplexity(model_dir: Path, rows: list[list[int]]) -> float:
    """Of the held-out rows, in the precision that the model is stored in."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    losses = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row])
            logits: Tensor = model(ids).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item())
    return float(torch.tensor(statistics.fmean(losses)).exp())


def slope(values: list[int]) -> float:
    """Growth per layer, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope if len(values) > 1 else 0.0


def layer_bytes(model_dir: Path) -> int:
    """Of one decoder layer in bf16."""
    from tunesmith.tools.models.shape import ModelShape

    shape = ModelShape.of(json.loads((model_dir / "config.json").read_text()))
    return 2 * (shape.attention_parameters + shape.mlp_parameters)


def compared(theirs: Figures, ours: Figures, layer: int) -> Figures:
    """Ours as a share of theirs, and whether every goal is reached."""
    peak, took = ours["peak_bytes"] / theirs["peak_bytes"], ours["seconds"] / theirs["seconds"]
    grows = slope(ours["layers"]) / layer
    apart_by = ours["perplexity"] / theirs["perplexity"] - 1
    reached = peak <= PEAK and took <= TIME and grows <= SLOPE and apart_by <= PERPLEXITY
    return {
        "peak": round(peak, 3),
        "time": round(took, 3),
        "cpu_time": round(ours["cpu_seconds"] / theirs["cpu_seconds"], 3),
        "grows_by_layers": round(grows, 4),
        "theirs_grows_by_layers": round(slope(theirs["layers"]) / layer, 4),
        "perplexity_above": round(apart_by, 5),
        "reached": reached,
    }


def apart(*arguments: str) -> Figures:
    """This script in a process of its own, started as a worker is; what it prints last."""
    from tunesmith.tools.export.quantize import STAGE
    from tunesmith.tools.machine.gpus import trains_on_cpu
    from tunesmith.tools.pipeline.launcher import worker_environment

    assert trains_on_cpu()
    env = (
        [f"{name}={value}" for name, value in worker_environment(STAGE, {}, ()).items()] if "ours" in arguments else []
    )
    command = ["/usr/bin/env", *env, sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print what was found, as JSON; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--save", type=Path, default=Path("quantize-bench.json"))
    parser.add_argument("--side", choices=("ours", "theirs", "perplexity"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.side:
        rows, held_out = tokens(args.model, args.samples, args.tokens)
        if args.side == "perplexity":
            print("\n" + json.dumps({"perplexity": perplexity(args.out, held_out)}))
        else:
            print("\n" + json.dumps({"ours": ours, "theirs": theirs}[args.side](args.model, args.out, rows)._asdict()))
        return 0
    from tests.bench.merge import model_folder

    with tempfile.TemporaryDirectory(prefix="bench-quantize-") as folder:
        found = side_by_side(model_folder(Path(folder)), Path(folder), args.samples, args.tokens, args.save)
    return 0 if found["reached"] else 1


def side_by_side(model: Path, folder: Path, samples: int, length: int, save: Path) -> Figures:
    """Both sides, the perplexity of either and of the model before, and what follows from them."""
    shared = ["--model", str(model), "--samples", str(samples), "--tokens", str(length)]
    found: Figures = {"model": model.name, "samples": samples, "tokens": length}
    for name in ("ours", "theirs"):
        found[name] = apart(*shared, "--side", name, "--out", f"{folder}/{name}")
        found[name] |= apart(*shared, "--side", "perplexity", "--out", f"{folder}/{name}")
        keep(found, save)
    found["before"] = apart(*shared, "--side", "perplexity", "--out", str(model))
    found |= compared(found["theirs"], found["ours"], layer_bytes(model))
    keep(found, save)
    return found


def keep(found: Figures, path: Path) -> None:
    """Print what was found so far, and write it where it is to be saved."""
    text = json.dumps(found)
    print(text, flush=True)
    path.write_text(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
