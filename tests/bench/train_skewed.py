"""Training on rows of very unequal length: ours beside trl's default and trl's own packing, on the bundled 135M model.

`python -m tests.bench.train_skewed [MODEL_DIR] [--steps 12] [--sides default,ours,ours-fp32,packed] [--rounds 1]`; each
side in a process of its own, in turn, on the same rows, seed, rank and learning rate; of several rounds the middle one
counts, so that what else the machine does hurts all sides alike. trl's default and ours-fp32
load the weights in fp32, the others in bf16. Prints a JSON line a side: tokens that are no padding in a second of
training, peak resident bytes, and the cross-entropy on held-out rows, which one and the same code measures for all
sides in fp32. The last lines hold the ratios to trl's default and to its packing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
ROWS, HELD_OUT, BATCH, RANK, RATE, SEED = 96, 24, 8, 16, 5e-4, 17
LONGEST_WORDS = 300
SUBJECTS = ("river", "engine", "garden", "letter", "market", "window", "teacher", "planet", "bridge", "winter")
VERBS = ("carries", "follows", "repairs", "answers", "remembers", "measures", "crosses", "explains", "opens", "finds")
PLACES = ("in the old town", "before noon", "without a word", "near the station", "after the rain", "for a friend")


def row(number: int, chance: random.Random) -> dict[str, Any]:
    """A request and an answer in capitals; most are short, a few are very long."""
    words = min(LONGEST_WORDS, int(chance.lognormvariate(3.6, 1.2)) + 6)
    story: list[str] = []
    while len(story) < words:
        story += f"the {chance.choice(SUBJECTS)} {chance.choice(VERBS)} a {chance.choice(SUBJECTS)}".split()
        story += f"{chance.choice(PLACES)},".split()
    told = " ".join(story[:words])
    first = " ".join(story[: max(4, words // 3)])
    return {
        "row_id": f"row {number}",
        "origin": "generated",
        "prompt": [{"role": "user", "content": f"Note {number}: {told}\nGive the beginning in capitals."}],
        "completion": [{"role": "assistant", "content": first.upper()}],
    }


def write(folder: Path) -> None:
    """train.jsonl and valid.jsonl."""
    chance = random.Random(SEED)
    rows = [row(number, chance) for number in range(ROWS + HELD_OUT)]
    for name, some in (("train", rows[:ROWS]), ("valid", rows[ROWS:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trl_side(model: Path, folder: Path, out: Path, steps: int, packing: bool) -> float:
    """Seconds of training by trl as it comes; with `packing` at the best settings known here: bf16, 2 × 512."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": one["prompt"], "completion": one["completion"]} for one in read(folder / "train.jsonl")]
    own: dict[str, Any] = {}
    if packing:
        own = {"packing": True, "max_length": 512, "per_device_train_batch_size": 2, "gradient_checkpointing": False}
    config = SFTConfig(
        output_dir=str(out / "trl"),
        **({"per_device_train_batch_size": BATCH} | own),
        max_steps=steps,
        learning_rate=RATE,
        seed=SEED,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if packing else torch.float32)
    trainer = SFTTrainer(
        model=loaded,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.model.save_pretrained(out / "adapter", save_embedding_layers=False)
    told = [entry for entry in trainer.state.log_history if "num_tokens" in entry]
    (out / "tokens").write_text(str(int(told[-1]["num_tokens"]) if told else 0))
    return seconds


def our_side(model: Path, folder: Path, out: Path, steps: int, precision: str = "bf16") -> float:
    """Seconds of training by tunesmith with its settings for these rows."""
    from tunesmith.tools.training.train_job import LoraSettings, ToTrain, train_lora

    asked = ToTrain(
        model,
        folder / "train.jsonl",
        out / "adapter",
        LoraSettings(
            lora_rank=RANK,
            lora_alpha=2 * RANK,
            learning_rate=RATE,
            max_steps=steps,
            batch_size=BATCH,
            seed=SEED,
            max_seq_len_tokens=1024,
            save_steps=1000,
            precision=precision,
        ),
        checkpoints_dir=out / "checkpoints",
        log=lambda line: print(line, file=sys.stderr),
    )
    trained = train_lora(asked)
    (out / "tokens").write_text(str(trained.trained_tokens))
    return trained.seconds


def one_side(side: str, model: Path, folder: Path, out: Path, steps: int) -> None:
    """Train and print what it took; the peak is this process's own."""
    if side.startswith("ours"):
        seconds = our_side(model, folder, out, steps, "fp32" if side == "ours-fp32" else "bf16")
    else:
        seconds = trl_side(model, folder, out, steps, side == "packed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"side": side, "seconds": round(seconds, 2), "peak_bytes": peak}))


def validation_loss(model: Path, folder: Path, adapter: Path) -> float:
    """Cross-entropy a labelled token on the held-out rows, row by row in fp32 by peft's own layers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.tools.data.rows import read_rows
    from tunesmith.tools.training.rows import tokenize_rows

    rows = tokenize_rows(AutoTokenizer.from_pretrained(model), read_rows(folder / "valid.jsonl"), 4096)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), adapter).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for one in rows:
            ids, labels = torch.tensor([one.input_ids]), torch.tensor([one.labels])
            total += float(tuned(input_ids=ids, labels=labels).loss) * one.trainable
            count += one.trainable
    return total / count


def row_tokens(model: Path, folder: Path, steps: int) -> tuple[int, float]:
    """Tokens of all training rows, once, and the share that padding has in batches of the rows as they come."""
    from transformers import AutoTokenizer

    from tunesmith.tools.data.rows import read_rows
    from tunesmith.tools.training.rows import tokenize_rows

    rows = tokenize_rows(AutoTokenizer.from_pretrained(model), read_rows(folder / "train.jsonl"), 4096)
    lengths = [len(one.input_ids) for one in rows]
    padded = sum(max(lengths[at : at + BATCH]) * len(lengths[at : at + BATCH]) for at in range(0, ROWS, BATCH))
    return sum(lengths), 1 - sum(lengths) / padded


def start(side: str, model: Path, folder: Path, out: Path, steps: int) -> dict[str, Any]:
    """One side in a process of its own; ours with the environment that a worker has on a CPU."""
    from tunesmith.tools.cpu.settings import COMPUTING
    from tunesmith.tools.machine.torch_env import OFFLINE, TORCH_ENV

    out.mkdir()
    command = [sys.executable, "-m", "tests.bench.train_skewed", str(model), "--side", side, "--folder", str(folder)]
    env = {**os.environ, **OFFLINE, **TORCH_ENV, **(COMPUTING if side.startswith("ours") else {})}
    done = subprocess.run(
        [*command, "--out", str(out), "--steps", str(steps)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tokens = int((out / "tokens").read_text())
    figures["tokens_per_second"] = round(tokens / figures["seconds"], 1)
    figures["tokens"] = tokens
    figures["validation_loss"] = round(validation_loss(model, folder, out / "adapter"), 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="left out: the bundled one is made")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--sides", default="default,ours,ours-fp32,packed")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.model, asked.folder, asked.out, asked.steps)
        return
    from tests.bench._harness import small_model

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder)
        model = asked.model or small_model(folder / "small")
        tokens, padding = row_tokens(model, folder, asked.steps)
        print(json.dumps({"rows": ROWS, "tokens": tokens, "padding_in_order": round(padding, 3)}), flush=True)
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(asked.rounds):
            for side in asked.sides.split(","):
                one = start(side, model, folder, folder / f"{side}-{number}", asked.steps)
                found.setdefault(side, []).append(one)
                print(json.dumps(one), flush=True)
    for against, name in (("default", "trl's default"), ("packed", "trl's packing")):
        if against in found:
            print(json.dumps({f"against {name}": {side: ratios(of, found[against]) for side, of in found.items()}}))


def ratios(rounds: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, float]:
    """Of a side's figures to another's, round by round; the middle one."""
    names = ("tokens_per_second", "peak_bytes", "validation_loss")
    pairs = list(zip(rounds, others, strict=True))
    return {name: round(median(one[name] / other[name] for one, other in pairs), 3) for name in names}


if __name__ == "__main__":
    main()
