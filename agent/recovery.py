"""What every start does first: find what died while nobody looked, and tell it."""

from __future__ import annotations

import contextlib

from tunesmith.memory.store import Store
from tunesmith.tools import runner


def recover(store: Store) -> list[str]:
    """Mark dead steps and end servers that outlived their step; a line about each of them."""
    lines = [f"{step.stage} ({step.id} of {step.run}) failed: {step.error}" for step in runner.reconcile(store)]
    with contextlib.suppress(ImportError):
        from tunesmith.tools import serving

        lines += [f"stopped an orphaned server: {server}" for server in serving.stop_orphans(store)]
    return lines
