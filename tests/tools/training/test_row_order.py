"""Which rows a training step learns from together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.tools.training import trainer
from tunesmith.tools.training.train_job import LoraSettings, ToTrain, train_lora

pytestmark = pytest.mark.lab

ROWS, BATCH = 48, 4


@pytest.mark.parametrize(("kind", "packed"), [("llama", True), ("gemma2", False)])
def test_a_step_is_a_sample_of_all_rows_unless_rows_are_padded(
    kind: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows alike in length, step after step, would be one kind of row after another; padding alone is worth that."""
    batches: list[list[int]] = []
    usual = trainer.micro_batches

    def seen(inputs: Any, loss: Any) -> list[dict[str, Any]]:
        assert loss.packed is packed
        batches.append(inputs["attention_mask"].sum(1).tolist())
        return usual(inputs, loss)

    monkeypatch.setattr(trainer, "micro_batches", seen)
    rows = [
        {"prompt": [{"role": "user", "content": "one " * n}], "completion": [{"role": "assistant", "content": "1"}]}
        for n in range(1, ROWS + 1)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"origin": "generated", **row}) + "\n" for row in rows))
    asked = ToTrain(
        write_tiny_model(tmp_path / "base", kind, **({"final_logit_softcapping": 2.0} if kind == "gemma2" else {})),
        tmp_path / "train.jsonl",
        tmp_path / "adapter",
        LoraSettings(lora_rank=4, lora_alpha=8, epochs=1.0, batch_size=BATCH),
        checkpoints_dir=tmp_path / "checkpoints",
    )
    train_lora(asked)
    lengths = sorted(length for batch in batches for length in batch)
    assert len(batches) == ROWS // BATCH and len(set(lengths)) == ROWS  # every row, once
    spread = sum(max(batch) - min(batch) for batch in batches) / len(batches) / (lengths[-1] - lengths[0])
    # Of four random numbers from 0 to 1 the largest and the smallest are 0.6 apart on average; of neighbours in a group
    # of twelve, 0.2.
    assert spread > 0.45 if packed else spread < 0.3
