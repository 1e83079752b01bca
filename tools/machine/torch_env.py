"""The environment of what we start: whatever loads somebody's library, what needs no hub, what computes with torch."""

from __future__ import annotations

NO_REPORTS: dict[str, str] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # trl tells Hugging Face of every trainer that is made
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_MODE": "disabled",
    "COMET_MODE": "DISABLED",
    "NEPTUNE_MODE": "disabled",
    "SWANLAB_MODE": "disabled",
}
"""Of every worker: what its libraries would report to somebody, whatever the user's own environment switches on."""
OFFLINE: dict[str, str] = {
    **NO_REPORTS,
    "HF_HUB_OFFLINE": "1",  # all that is loaded lies here; peft and others would ask the hub about it all the same
    "HF_DATASETS_OFFLINE": "1",
}
"""Of every worker whose step names nothing of the hub, of every model server, and of the embedding model."""
TORCH_ENV: dict[str, str] = {
    "TOKENIZERS_PARALLELISM": "false",  # its threads do not outlive a fork, of which it warns each time
    "TQDM_DISABLE": "1",  # bars of libraries in a log; how far a step is, it tells itself
    "PYTHONUNBUFFERED": "1",  # the log is read while it grows, and has the last words of one that is killed
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # parts of unequal length otherwise fragment a GPU's memory
    # numpy's own threads, not torch's: audits multiply small matrices in threads of their own, and where these wait for
    # each other on a busy machine the same work took 27 s instead of 3, and three times the processor's time.
    "OPENBLAS_NUM_THREADS": "1",
}
