"""What processes that compute on a CPU are started with."""

from __future__ import annotations

import re
from pathlib import Path

VLLM_PLUGIN = Path(__file__).parent / "vllm_plugin"
"""A folder for a server's PYTHONPATH: vLLM finds the plugin in it by its entry point."""
ASLEEP: dict[str, str] = {
    # Threads that wait for the others spin a moment and then sleep. By default libgomp has them spin for milliseconds,
    # on the core that the others need as soon as any other program computes too: on two cores, products of 400 × 576 ×
    # 1536 beside three busy processes took 2.4 to 7 s, by default 25 to 109. Alone, a training step takes 16 % more.
    "GOMP_SPINCOUNT": "1000",
}
"""Beside other programs that compute."""
COMPUTING: dict[str, str] = {
    # Freed tensors stay in the heap instead of going back to the kernel and being faulted in again, in huge pages.
    # glibc reads this before main() runs.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592"
    ":glibc.malloc.trim_threshold=17179869184",
}
VLLM: dict[str, str] = {
    # vLLM's CPU kernels otherwise compute "W4A16" with 8-bit activations, which no config of the model asked for.
    "VLLM_CPU_INT4_W4A8": "0",
    # The worker in the engine's process: 9 s less to start, and half as many tokens a second again, on two cores.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # vLLM compiles one small function, which ranks log probabilities, for the first request that asks for them: 15 to
    # 31 s on a new machine, 4 s in every server after that, and only where a C++ compiler is. Left as it is, it takes
    # 5 ms instead of 1 for 64 answers. The model itself is never compiled here (`--enforce-eager`).
    "TORCHDYNAMO_DISABLE": "1",
}


def vllm_plugins() -> list[str]:
    """Names and versions of the plugins in that folder, for the comparability key."""
    return [folder.stem.replace("-", " ") for folder in VLLM_PLUGIN.glob("*.dist-info")]


def preloaded(vllm: str) -> dict[str, str]:
    """What lets a server fork its engine: the OpenMP of the PyTorch beside a vllm program, loaded first as vLLM would.

    Empty where there is none of that name, or its path holds what separates two in a list; then the engine is started
    anew.
    """
    packages = next((Path(vllm).resolve().parent.parent / "lib").glob("python3*/site-packages"), None)
    for folder in (packages / "torch.libs", packages / "torch" / "lib") if packages else ():
        for library in sorted(folder.glob("libgomp*.so*")):
            return {} if re.search(r"[\s:]", str(library)) else {"LD_PRELOAD": str(library)}
    return {}
