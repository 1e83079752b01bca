"""Values of options, read from the command line. Each raises ArgumentTypeError, with what would do."""

from __future__ import annotations

import argparse


def hours(text: str) -> float:
    """Hours above 0."""
    return _above_zero(text, "hours", "2")


def gib(text: str) -> float:
    """GiB above 0."""
    return _above_zero(text, "GiB", "32")


def gigabytes(text: str) -> float:
    """GB above 0."""
    return _above_zero(text, "GB", "40")


def _above_zero(text: str, of: str, such_as: str) -> float:
    try:
        number = float(text)
    except ValueError:  # refused with the rest, below
        number = 0.0
    if not 0 < number < 1e6:  # `inf` and `nan` are floats too
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of {of} above 0, such as {such_as}")
    return number
