"""The environment that workers which compute with torch are started with, whatever they compute on."""

from __future__ import annotations

TORCH_ENV: dict[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "TQDM_DISABLE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # parts of unequal length otherwise fragment a GPU's memory
}
