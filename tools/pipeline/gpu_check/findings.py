"""What one item of the check on a card came to: what was predicted, what was measured, and how far apart they are."""

from __future__ import annotations

from typing import Literal

from tunesmith.tools.core.stage import Frozen

Within = tuple[float, float]
"""The least and the most of measured ÷ expected that is still as predicted."""


class Finding(Frozen):
    """One item."""

    name: str
    state: Literal["ok", "failed", "skipped"]
    expected: float | str | None = None
    """By tunesmith's own arithmetic; in words where it is no number."""
    measured: float | str | None = None
    ratio: float | None = None
    """measured ÷ expected; None where these are words."""
    seconds: float = 0.0
    """From the end of the item before it."""
    why: str = ""
    """Why it failed or was left out; of one that is ok what else there is to know."""
    unit: str = ""
    """bytes, seconds, FLOP/s, bytes/s, nats …"""
    within: Within | None = None


def compared(name: str, *, expected: float, measured: float, within: Within, unit: str, why: str = "") -> Finding:
    """A prediction against a measurement, both in `unit`: ok where their ratio is `within`."""
    ratio = measured / expected if expected else float("inf")
    holds = within[0] <= ratio <= within[1]
    off = f"measured ÷ expected is {ratio:.2f}, and {within[0]:g} to {within[1]:g} was predicted"
    return Finding(
        name=name, state="ok" if holds else "failed", expected=expected, measured=measured, ratio=round(ratio, 4),
        why=why if holds else "; ".join(filter(None, [off, why])), unit=unit, within=within,
    )  # fmt: skip


def stated(name: str, *, expected: str, measured: str, holds: bool, why: str = "") -> Finding:
    """What is said in words on both sides."""
    return Finding(name=name, state="ok" if holds else "failed", expected=expected, measured=measured, why=why)


def failed(name: str, why: str) -> Finding:
    """An item that did not come to its end."""
    return Finding(name=name, state="failed", why=why)
