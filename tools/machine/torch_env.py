"""The environment that workers which compute with torch are started with; glibc reads its part before main() runs."""

from __future__ import annotations

TRAIN_ENV: dict[str, str] = {
    # Freed tensors stay in the heap instead of going back to the kernel and being faulted in again, in huge pages.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592"
    ":glibc.malloc.trim_threshold=17179869184",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "TQDM_DISABLE": "1",
    "PYTHONUNBUFFERED": "1",
}
