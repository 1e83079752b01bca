"""What a training run depends on beside the base and the rows, and the fingerprint of all three."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith.memory.files import read_manifest, sha256_file
from tunesmith.tools.data.rows import VARIANTS
from tunesmith.tools.training.selection import Selection


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Everything that a training run depends on beside the base and the rows."""

    # The numbers are for who trains without a plan, as tests do: a plan chooses each, and says why (`defaults`).
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    learning_rate: float = 5e-4
    epochs: float = 3.0
    forms: int = 1
    max_steps: int = 0
    """0: as many as the epochs need."""
    batch_size: int = 8
    micro_batch: int = 0
    """Rows of usual length in memory at once; 0: the whole batch."""
    max_seq_len_tokens: int = 512  # rows of behaviours mostly have some hundred
    usual_row_tokens: int = 0
    """That a row counts at where tokens in memory at once are bounded; 0: what the rows have on average."""
    warmup_ratio: float = 0.05  # AdamW's first steps know little of how gradients vary
    precision: str = "bf16"
    load_in_4bit: bool = False
    activation_checkpointing: str = "off"
    rehearsal_weight: float = 1.0
    """Of the mean divergence beside the mean loss. 1 is what 3 was over one denominator on the demo's 18 k tokens that
    are learned and 6 k that are held."""
    value_weight: float = 1.0
    """Of a token of an answer that says a value of it, beside one of its frame; 1: all count alike."""
    save_steps: int = 20  # a checkpoint is written whole, and measured
    max_kl: float = 0.0
    """As in `Selection`, and `patience` too: 0 is no bound, and no early end."""
    patience: int = 0
    seed: int = 17  # any; the same one gives the same training
    cards: int = 1
    """That share a step's rows, a process each; on a processor, so many processes."""
    at_once: bool = False
    """Whether rows are rendered for a model that is told to answer without a thought first."""

    @property
    def rows_at_once(self) -> int:
        """Rows that are in memory at once while it trains, of each card."""
        return self.micro_batch or self.batch_size // self.cards

    @property
    def selection(self) -> Selection:
        """How the checkpoint is chosen that becomes the adapter."""
        return Selection(self.max_kl, self.patience)


def settings_of(request: BaseModel, **others: Any) -> LoraSettings:
    """The settings that a request names, so that no field of it is left out; `others` replace or complete them."""
    named = {name: value for name, value in request if name in LoraSettings.__dataclass_fields__}
    return LoraSettings(**{**named, **others})


def fingerprint(base_dir: Path, rows_path: Path, settings: LoraSettings) -> str:
    """Of everything that a checkpoint must share with a training to be gone on from."""
    manifest = read_manifest(base_dir)
    decided: dict[str, object] = {
        **asdict(settings),
        "save_steps": 0,
        "loss": "two means of documents",
        "order": "random where packed",
        "rows": sha256_file(rows_path),
        **({"variants": sha256_file(varied)} if (varied := rows_path.parent / VARIANTS).exists() else {}),
        "base": manifest["sha256"] if manifest else "",
    }
    del decided["max_kl"], decided["patience"]  # they choose among checkpoints, and change none
    # Several cards compute the step that one does, and parts of any size, computed in any way, add up to it.
    for how in ("cards", "micro_batch", "activation_checkpointing", "usual_row_tokens"):
        del decided[how]
    # What is as it was before the setting existed is left out, each for itself: older checkpoints go on.
    if settings.value_weight == 1:
        del decided["value_weight"]
    if "variants" not in decided:
        del decided["forms"]
    if not settings.at_once:
        del decided["at_once"]  # as above
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()
