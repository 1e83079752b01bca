"""What a graphics card really has for programs, by its name or by a size alone.

Sizes are those that the driver reports (`nvidia-smi --query-gpu=memory.total`). It keeps something of them for itself,
as torch's "total capacity" shows: 23.64 GiB of a 4090's 23.99, 22.2 of an A10's 22.49, 79.2 of an A100's 80.0. Left
out: cards below compute capability 8.0, on which nothing here computes, and boards that share the host's memory.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.machine import usable_bytes
from tunesmith.tools.core.stage import GIB

_MIB = {
    # Compute capability, then MiB as nvidia-smi shows them: cards hold less than their names say.
    "8.0": {"A30": 24576, "A100": 81920, "A100 80GB": 81920, "A100 40GB": 40960},
    "8.6": {
        "RTX 3060": 12288, "RTX 3060 Ti": 8192, "RTX 3070": 8192, "RTX 3070 Ti": 8192, "RTX 3080": 10240,
        "RTX 3080 12GB": 12288, "RTX 3080 Ti": 12288, "RTX 3090": 24576, "RTX 3090 Ti": 24564, "RTX A4000": 16376,
        "RTX A5000": 24564, "RTX A6000": 49140, "A10": 23028, "A10G": 23028, "A40": 46068,
    },
    "8.9": {
        "RTX 4060": 8188, "RTX 4060 Ti": 8188, "RTX 4060 Ti 16GB": 16380, "RTX 4070": 12282, "RTX 4070 Super": 12282,
        "RTX 4070 Ti": 12282, "RTX 4070 Ti Super": 16376, "RTX 4080": 16376, "RTX 4080 Super": 16376,
        "RTX 4090": 24564, "RTX 4000 Ada": 20475, "RTX 5000 Ada": 32760, "RTX 6000 Ada": 49140, "L4": 23034,
        "L40": 46068, "L40S": 46068,
    },
    "9.0": {"H100": 81559, "H200": 143771},
    "10.0": {"B200": 183359},
    "12.0": {
        "RTX 5060": 8151, "RTX 5060 Ti": 8151, "RTX 5060 Ti 16GB": 16311, "RTX 5070": 12227, "RTX 5070 Ti": 16303,
        "RTX 5080": 16303, "RTX 5090": 32607, "RTX PRO 6000": 97887,
    },
}  # fmt: skip
_OF = {name: capability for capability, cards in _MIB.items() for name in cards}
USUAL_CAPABILITY = "8.6"
"""Taken of a card of unknown name: the oldest generation that many have; newer ones compute whatever it does."""
_SHARE = 0.01
_DESKTOP_GIB = 0.6
"""What a desktop and the driver take of a card of unknown name."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:gb|gib)?")
_SEVERAL = re.compile(r"([1-9]|1[0-6])[x×*](.+)")
"""More than 16 are in no machine that one program uses."""
_BRANDS = re.compile(r"nvidia|geforce|quadro|tesla|rtx|[^a-z0-9.]")
_USUAL = ("RTX 3060", "RTX 4090", "A100")
"""That are named to somebody whose word is like no card's."""
_OTHERS = re.compile(r"apple|mac|m\d\b|amd|radeon|instinct|rx ?\d|mi ?\d{2,3}|\d{4} ?(xtx?|gre)$|intel|gaudi|arc\b")
"""Beginnings of the names of GPUs of other makers: `7900 XTX`, `MI300X`, `M3 Max`."""
_MOST_GIB = 1024
"""Of one card: more is a number in MB."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card as programs find it, with nothing else running on it."""

    name: str
    free_gib: float
    note: str = ""
    """What was taken off, where only a size is known."""
    count: int = 1
    """How many of them are in the machine."""
    capability: str = USUAL_CAPABILITY


def card_of(text: str) -> Card:
    """The card that is named, or one of a size (`24`, `24 GB`), or several in one machine (`2x24`, `2x4090`).

    Raises BadInput with the names that are nearest.
    """
    if several := _SEVERAL.fullmatch(text.lower().replace(" ", "")):
        one, count = card_of(several[2]), int(several[1])
        return replace(one, name=f"{count} × {one.name}", count=count) if count > 1 else one
    named = {_key(name): name for name in _OF}
    if name := named.get(_key(text)):
        capability = _OF[name]
        return Card(name, usable_bytes(_MIB[capability][name] << 20) / GIB, capability=capability)
    size = _SIZE.fullmatch(text.lower().replace(" ", ""))
    if _OTHERS.match(text.lower().strip()):
        raise BadInput(
            f"{text[:40]!r} is no NVIDIA GPU: tunesmith computes on NVIDIA GPUs or on the CPU, not on AMD, Apple or "
            f"Intel GPUs; name an NVIDIA card such as {_USUAL[1]}, or leave the card out"
        )
    if not size or not 1 <= float(size[1]) <= _MOST_GIB:
        near = difflib.get_close_matches(_key(text[:40]), named, 3) or map(_key, _USUAL)
        like = ", ".join(named[key] for key in near)
        raise BadInput(f"no card is known as {text[:40]!r}; give a size in GB, such as 24 or 2x24, or one of {like} …")
    return card_of_size(float(size[1]))


def card_of_size(gib: float) -> Card:
    """A card of so many GiB, of which a desktop and the driver take their part."""
    overhead = max(_DESKTOP_GIB, _SHARE * gib)
    note = (
        f"{overhead:.1f} GiB of its {gib:g} are left to a desktop and the driver; name the card to have its own "
        f"figure; it is taken for one of compute capability {USUAL_CAPABILITY}"
    )
    return Card(f"a card of {gib:g} GB", gib - overhead, note)


def _key(text: str) -> str:
    return _BRANDS.sub("", text.lower())
