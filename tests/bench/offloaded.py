"""What is ours beside what llm-compressor offers for the same: quantizing from a disk, and rounding without data.

`streamed` and `offloaded` (`load_context` with all on disk, `oneshot` with its sequential pipeline) have the same
modifiers, batches and inner loop; `rounded` and `free` (`model_free_ptq`) round to 4 bits. Each is a process of its
own; printed are peaks, seconds and how many tensors differ. A mixture cannot be `offloaded` without torchvision.

TUNESMITH_BENCH_MODEL names the model's folder; without one the bundled 1.5B is fetched and converted first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
PAIRS = (("streamed", "offloaded"), ("rounded", "free"))
SAMPLES, TOKENS = 64, 256
_SAMPLE_S = 0.02


def anonymous_mib(found: list[int]) -> None:
    """Keep in `found` the most anonymous memory of this process; a peak counts mapped files too, which are no need."""
    while True:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        found[0] = max(found[0], int(lines["RssAnon"].split()[0]) >> 10)
        time.sleep(_SAMPLE_S)


def batches(model: Path) -> list[Any]:
    from tests.bench.quantize import tokens
    from tunesmith.tools.export.calibration import calibration_batch
    from tunesmith.tools.models.memory_math import rows_in_a_batch

    rows, several = tokens(model, SAMPLES, TOKENS)[0], rows_in_a_batch(TOKENS)
    return [calibration_batch(rows[at : at + several], 0) for at in range(0, len(rows), several)]


def streamed(model: Path, out: Path, group: int) -> None:
    from tunesmith.tools.export.quantize import QuantizeRequest
    from tunesmith.tools.export.quantize_job import quantize_with

    request = QuantizeRequest(scheme="W4A16", group_size=group, keep=())
    quantize_with(batches(model), model, out, request, lambda *_: None)


def offloaded(model: Path, out: Path, group: int) -> None:
    from llmcompressor import oneshot
    from llmcompressor.utils import load_context
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    from tunesmith.tools.cpu.freed_memory import return_large_blocks
    from tunesmith.tools.cpu.gptq_blocks import use_fast_blocks
    from tunesmith.tools.export.rounding_recipes import recipes, unpinned

    use_fast_blocks()
    return_large_blocks()
    disk = out.with_name(f"{out.name}.disk")
    disk.mkdir()
    placed: dict[str, Any] = {"device_map": "auto_offload", "max_memory": {"cpu": 1}, "offload_folder": str(disk)}
    with load_context():
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto", **placed)
    [(_, recipe)] = recipes("W4A16", group, json.loads((model / "config.json").read_text()))
    rows = batches(model)
    with unpinned():
        oneshot(
            model=loaded, dataset=DataLoader(rows, batch_size=None), recipe=recipe, pipeline="sequential",
            num_calibration_samples=len(rows),
        )  # fmt: skip
    loaded.save_pretrained(out, max_shard_size="500MB")


def rounded(model: Path, out: Path, group: int) -> None:
    from tunesmith.tools.export.round_to_nearest import round_base

    out.mkdir()
    round_base(model, out, lambda *_: None)


def free(model: Path, out: Path, group: int) -> None:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import model_free_ptq

    from tunesmith.tools.models.full_precision import full_precision_layers

    shared: dict[str, Any] = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, **shared)
    kept = [*full_precision_layers(json.loads((model / "config.json").read_text())), "re:.*embed_tokens$"]
    model_free_ptq(model, out, scheme=QuantizationScheme(targets=["Linear"], weights=weights), ignore=kept)


def side(name: str, model: Path, out: Path) -> None:
    """One of the four, in this process; prints what it took."""
    from tunesmith.tools.models.memory_math import group_size_for

    most, started = [0], time.perf_counter()
    threading.Thread(target=anonymous_mib, args=(most,), daemon=True).start()
    SIDES[name](model, out, group_size_for(json.loads((model / "config.json").read_text())))
    used = resource.getrusage(resource.RUSAGE_SELF)
    found: dict[str, float] = {"peak_mib": used.ru_maxrss >> 10, "anonymous_mib": most[0]}
    found |= {"cpu_s": round(used.ru_utime + used.ru_stime, 1), "wall_s": round(time.perf_counter() - started, 1)}
    print("\n" + json.dumps(found))


SIDES = {"streamed": streamed, "offloaded": offloaded, "rounded": rounded, "free": free}


def main() -> int:
    """Print each side's figures, and of each pair how many tensors differ; 1 where any of the first pair does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", nargs=3, metavar=("NAME", "MODEL", "OUT"))
    args = parser.parse_args()
    if args.side:
        side(args.side[0], *map(Path, args.side[1:]))
        return 0
    from tests.bench.merge import model_folder
    from tunesmith.tools.export.quantize import STAGE
    from tunesmith.tools.models.tensor_file import places_of
    from tunesmith.tools.pipeline.launcher import worker_environment

    env, wrong = {**os.environ, **worker_environment(STAGE, {}, ())}, 0
    with tempfile.TemporaryDirectory(prefix="bench-offloaded-") as name:
        folder = Path(name)
        model = model_folder(folder)
        for pair in PAIRS:
            for one in pair:
                command = [sys.executable, __file__, "--side", one, str(model), str(folder / one)]
                done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
                print(one, done.stdout.splitlines()[-1], flush=True)
            ours, theirs = (places_of(folder / one) for one in pair)
            differ = ours.keys() ^ theirs.keys()
            differ |= {name for name in ours.keys() & theirs.keys() if ours[name].read() != theirs[name].read()}
            print(f"{pair[0]} and {pair[1]}: {len(differ)} of {len(ours)} tensors differ", flush=True)
            wrong += len(differ) * (pair == PAIRS[0])  # theirs rounds in the model's own precision: ties differ
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
