"""What the set-up has to know of a machine before it installs 20 GB: whether its GPU can be used, and its kernels.

Standard library only: the set-up loads it by its path, before anything is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

OLDEST_DRIVER = 580
"""What the CUDA 13.0 in both environments' torch needs."""
AMD_DRIVER = Path("/sys/module/amdgpu")
OLDEST_CAPABILITY = (8, 0)
"""Below it bf16 is emulated in training and becomes fp16 in vLLM."""


class Card(NamedTuple):
    """One GPU, as nvidia-smi describes it."""

    name: str
    driver: str
    capability: tuple[int, ...]
    """Empty where the driver is too old to be asked for it, as before 510."""


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is loaded (the proc file) or reachable (nvidia-smi, as under WSL)."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def nvidia_cards() -> list[Card]:
    """The cards, as nvidia-smi describes them; none where it says nothing that can be read."""
    for columns in ("name,driver_version,compute_cap", "name,driver_version"):
        lines = _nvidia_smi(columns).stdout.splitlines()
        try:
            fields = [[field.strip() for field in line.split(",")] for line in lines if line.strip()]
            cards = [Card(name, driver, tuple(map(int, ".".join(cap).split(".")))) if cap else Card(name, driver, ())
                     for name, driver, *cap in fields]  # fmt: skip
        except ValueError:  # a capability that is no number, or too few fields: asked for less
            continue
        if cards:
            return cards
    return []


def _nvidia_smi(columns: str) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader"]
    try:
        # 20 s: a driver wakes up many sleeping cards one by one; one that hangs must not hang the command.
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):  # not installed, or it did not answer
        return subprocess.CompletedProcess(command, 1, "", "")
    return done if not done.returncode else subprocess.CompletedProcess(command, 1, "", done.stdout or done.stderr)


def computes_on_gpu(device: str) -> bool:
    """Whether to set up for a GPU: `device` is auto, cpu or cuda. Raises ValueError where a card cannot be used: what
    was found, what is needed, and what to do.

    A card too old to compute on is passed over where nobody asked for it; an old driver never is: it can be updated,
    and the card is worth more than the CPU. Where a driver that runs describes no card, one is taken to be there.
    """
    if device == "cpu" or (device == "auto" and not has_nvidia_driver()):
        return False
    cards = nvidia_cards()
    good = [card for card in cards if not card.capability or card.capability >= OLDEST_CAPABILITY]
    if cards and not good:
        if device == "auto":
            return False
        best = max(cards, key=lambda card: card.capability)
        raise ValueError(
            f"found {best.name} with compute capability {_dotted(best.capability)}; training in bf16 and vLLM need "
            f"{_dotted(OLDEST_CAPABILITY)} or higher (Ampere, 2020, and later); use another card"
        )
    if good and _major(good[0].driver) < OLDEST_DRIVER:
        raise ValueError(
            f"found {good[0].name} with the NVIDIA driver {good[0].driver}; torch with CUDA 13.0 needs driver "
            f"{OLDEST_DRIVER} or newer; update the driver"
        )
    if not cards and (failure := _nvidia_smi("name")).returncode and shutil.which("nvidia-smi"):
        first_line = (failure.stderr.strip().splitlines() or ["nothing"])[0]
        raise ValueError(f"found nvidia-smi, and it fails ({first_line[:120]}); load or update the NVIDIA driver")
    return True


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _major(driver: str) -> int:
    """Of a driver's version; one that cannot be read counts as new enough."""
    first = driver.partition(".")[0]
    return int(first) if first.isdecimal() else OLDEST_DRIVER


def described() -> str:
    """Which device a set-up finds, in a sentence."""
    cards = nvidia_cards()
    if not cards:
        if has_nvidia_driver():
            return "found an NVIDIA driver that names no card"
        other = "an AMD GPU" if AMD_DRIVER.exists() else "an Apple GPU" if sys.platform == "darwin" else ""
        return f"found {other}, which tunesmith does not use, and no NVIDIA GPU" if other else "found no NVIDIA GPU"
    best = max(cards, key=lambda card: card.capability)
    more = f" and {len(cards) - 1} more" if len(cards) > 1 else ""
    facts = (
        f"found {best.name}{more} (driver {best.driver}, compute capability {_dotted(best.capability) or 'unknown'})"
    )
    if not best.capability or best.capability >= OLDEST_CAPABILITY:
        return facts
    return f"{facts}; training in bf16 and vLLM need {_dotted(OLDEST_CAPABILITY)}, so the CPU computes instead"


def has_amd_avx512() -> bool:
    """Whether this is an AMD processor with AVX-512, where zentorch's kernels serve 4-bit weights faster."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return False
    return "AuthenticAMD" in text and " avx512f " in text
