"""What the set-up has to know of a machine before it installs 20 GB: whether its GPU can be used, and its kernels.

Standard library only: the set-up loads it by its path, before anything is installed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

OLDEST_DRIVER = 580
"""What the CUDA 13.0 in both environments' torch needs."""
OLDEST_CAPABILITY = (8, 0)
"""Below it bf16 is emulated in training and becomes fp16 in vLLM."""


class Card(NamedTuple):
    """One GPU, as nvidia-smi tells it."""

    name: str
    driver: str
    capability: tuple[int, ...]


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is loaded (the proc file) or reachable (nvidia-smi, as under WSL)."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def nvidia_cards() -> list[Card]:
    """The cards, as nvidia-smi tells them; none where it tells nothing that can be read."""
    if not (smi := shutil.which("nvidia-smi")):
        return []
    asked = [smi, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        lines = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        fields = [[field.strip() for field in line.split(",")] for line in lines if line.strip()]
        return [Card(name, driver, tuple(map(int, cap.split(".")))) for name, driver, cap in fields]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def computes_on_gpu(device: str) -> bool:
    """Whether to set up for a GPU: `device` is auto, cpu or cuda. Raises ValueError where a card cannot be used.

    A card too old to compute on is passed over where nobody asked for it; an old driver never is: it can be brought up
    to date, and the card is worth more than the CPU. Where the driver tells nothing, it is taken at its word.
    """
    if device == "cpu" or (device == "auto" and not has_nvidia_driver()):
        return False
    cards = nvidia_cards()
    good = [card for card in cards if card.capability >= OLDEST_CAPABILITY]
    if cards and not good:
        if device == "auto":
            return False
        best = max(cards, key=lambda card: card.capability)
        capability, needed = (".".join(map(str, each)) for each in (best.capability, OLDEST_CAPABILITY))
        raise ValueError(f"{best.name} has compute capability {capability}, and {needed} is needed; take another card")
    if good and int(good[0].driver.split(".")[0]) < OLDEST_DRIVER:
        raise ValueError(
            f"the NVIDIA driver is {good[0].driver}, and torch with CUDA 13.0 needs {OLDEST_DRIVER} or newer; "
            "bring the driver up to date"
        )
    return True


def described() -> str:
    """Which device a set-up finds, in a sentence."""
    cards = nvidia_cards()
    if not cards:
        return "found an NVIDIA driver that names no card" if has_nvidia_driver() else "found no NVIDIA GPU"
    best = max(cards, key=lambda card: card.capability)
    capability = ".".join(map(str, best.capability))
    more = f" and {len(cards) - 1} more" if len(cards) > 1 else ""
    facts = f"found {best.name}{more} (driver {best.driver}, compute capability {capability})"
    needed = ".".join(map(str, OLDEST_CAPABILITY))
    return facts if best.capability >= OLDEST_CAPABILITY else f"{facts}, below {needed}: the CPU computes instead"


def has_amd_avx512() -> bool:
    """Whether this is an AMD processor with AVX-512, where zentorch's kernels serve 4-bit weights faster."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in text and " avx512f " in text
