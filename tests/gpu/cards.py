"""The items of `doctor --gpu`, as tasks."""

from __future__ import annotations

from collections.abc import Iterator

from tests.gpu.table import Check, skipped
from tunesmith.tools.pipeline.gpu_check import card_job
from tunesmith.tools.pipeline.gpu_check.findings import Finding
from tunesmith.tools.pipeline.gpu_check.stage import PARTS


def card(check: Check) -> Iterator[Finding]:
    """The card; none is there on a CPU."""
    if check.on_card:
        return card_job.card(check.home)
    return iter([skipped(name, "only a card has one") for name in PARTS["card"].gives])


def rates(check: Check) -> Iterator[Finding]:
    """What the device reaches."""
    return card_job.rates(check.home)
