"""What training really takes on a CPU beside what its formula says, over shapes of batch, length, precision and rank.

`python -m tests.bench.training_memory [MODEL_DIR ...] [--only PART_OF_A_NAME]`; without a folder both bundled models
are made. Each shape in a process of its own, one after the other, two optimiser steps on rows that are all as long as
the shape says. Prints a JSON line a shape: the process's peak of resident bytes, `Training.peak_bytes` of the same
shape, and the second over the first; then the mean and the worst distance from 1, and the shapes that would have been
told to fit into less than they took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
STEPS = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What is trained at once."""

    rows: int
    tokens: int
    """Of every row."""
    rank: int = 16
    precision: str = "bf16"
    in_4bit: bool = False
    checkpointing: bool = False

    @property
    def name(self) -> str:
        marks = [self.precision, f"r{self.rank}", *(["nf4"] * self.in_4bit), *(["checkpointing"] * self.checkpointing)]
        return f"{self.rows}x{self.tokens} {' '.join(marks)}"


SMALL = (
    Shape(1, 256),
    Shape(4, 256),
    Shape(8, 256),
    Shape(2, 1024),
    Shape(4, 512, rank=64),
    Shape(8, 512, checkpointing=True),
    Shape(4, 256, precision="fp32"),
    Shape(4, 256, in_4bit=True),
)
LARGE = (
    Shape(1, 256),
    Shape(4, 256),
    Shape(1, 1024, checkpointing=True),
    Shape(4, 256, rank=64, checkpointing=True),
    Shape(2, 256, in_4bit=True),
    Shape(1, 512, in_4bit=True, checkpointing=True),
)
SMALL_BELOW = 500_000_000


def bundled_models(folder: Path) -> list[Path]:
    """Both bundled models, made below a folder."""
    from tests.bench._harness import small_model
    from tests.bench.merge import model_folder

    return [small_model(folder / "small"), model_folder(folder)]


def rows_of(tokenizer: Any, shape: Shape) -> list[dict[str, Any]]:
    """Rows that the template makes exactly so many tokens of, nearly all of them in the answer.

    Raises ValueError for a tokenizer in which a further word is not one token more.
    """
    word = " one"
    prompt = [{"role": "user", "content": "Count."}]
    template: Any = tokenizer.apply_chat_template

    def row(number: int, words: int) -> dict[str, Any]:
        answer = f"{number}" + word * words
        return {
            "row_id": f"row {number}",
            "origin": "generated",
            "prompt": prompt,
            "completion": [{"role": "assistant", "content": answer}],
        }

    def length(one: dict[str, Any]) -> int:
        return len(tokenizer(template([*one["prompt"], *one["completion"]], tokenize=False)).input_ids)

    rows = [row(number, shape.tokens - length(row(number, 0))) for number in range(1, STEPS * shape.rows + 1)]
    if lengths := {length(one) for one in rows} - {shape.tokens}:
        raise ValueError(f"rows of {sorted(lengths)} tokens, where all should have {shape.tokens}")
    return rows


def train_one(model: Path, shape: Shape) -> int:
    """Peak of resident bytes of this process after two steps, saving included."""
    from transformers import AutoTokenizer

    from tunesmith.tools.training.train_job import LoraSettings, ToTrain, train_lora

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = rows_of(AutoTokenizer.from_pretrained(model), shape)
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked = ToTrain(
            model,
            folder / "train.jsonl",
            folder / "adapter",
            LoraSettings(
                lora_rank=shape.rank,
                lora_alpha=2 * shape.rank,
                max_steps=STEPS,
                batch_size=shape.rows,
                precision=shape.precision,
                load_in_4bit=shape.in_4bit,
                activation_checkpointing="on" if shape.checkpointing else "off",
                max_seq_len_tokens=shape.tokens,
                save_steps=1000,
            ),
            checkpoints_dir=folder / "checkpoints",
            log=lambda line: print(line, file=sys.stderr),
        )
        train_lora(asked)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parameters(model: Path) -> int:
    from tunesmith.tools.models.shape import ModelShape

    return ModelShape.of(json.loads((model / "config.json").read_text())).parameters


def expected_bytes(model: Path, shape: Shape) -> int:
    """What the price of training says of this shape."""
    from tunesmith.tools.models.fitting import Training

    way = Training(
        rows_at_once=shape.rows,
        longest_row_tokens=shape.tokens,
        lora_rank=shape.rank,
        precision=shape.precision,
        load_in_4bit=shape.in_4bit,
        checkpointing=shape.checkpointing,
        on_cpu=True,
    )
    return way.peak_bytes(json.loads((model / "config.json").read_text()))


def measured(model: Path, shape: Shape) -> dict[str, Any]:
    """One shape in a process of its own, with the environment that a worker has."""
    from tunesmith.tools.cpu.settings import COMPUTING
    from tunesmith.tools.machine.torch_env import OFFLINE, TORCH_ENV

    command = [sys.executable, "-m", "tests.bench.training_memory", str(model), "--shape", json.dumps(asdict(shape))]
    env = {**os.environ, **OFFLINE, **TORCH_ENV, **COMPUTING}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    peak, told = int(done.stdout.splitlines()[-1]), expected_bytes(model, shape)
    return {
        "parameters": parameters(model),
        "shape": shape.name,
        "peak_bytes": peak,
        "told_bytes": told,
        "ratio": round(told / peak, 3),
    }


def all_measured(models: Sequence[Path], only: str) -> Iterator[dict[str, Any]]:
    """Every shape of every model whose name holds `only`, told as it is measured."""
    for model in models:
        for shape in SMALL if parameters(model) < SMALL_BELOW else LARGE:
            if only in shape.name:
                one = measured(model, shape)
                print(json.dumps(one), flush=True)
                yield one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--shape")
    asked = parser.parse_args()
    if asked.shape:
        print(train_one(asked.models[0], Shape(**json.loads(asked.shape))))
        return
    with TemporaryDirectory() as scratch:
        found = list(all_measured(asked.models or bundled_models(Path(scratch)), asked.only))
    if not found:
        parser.error(f"no shape's name holds {asked.only!r}")
    off = [abs(one["ratio"] - 1) for one in found]
    short = [f"{one['shape']} of {one['parameters']}" for one in found if one["told_bytes"] < one["peak_bytes"]]
    summary = {"shapes": len(found), "mean_off": round(sum(off) / len(off), 3), "worst_off": round(max(off), 3)}
    print(json.dumps(summary | {"told_too_little": short}))


if __name__ == "__main__":
    main()
