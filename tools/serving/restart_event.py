"""Tells the store that the engine of a deployed server ended: `python -m tunesmith.tools.serving.restart_event RECORD`.

A process of its own, since the supervisor is of the standard library alone. What it cannot write down is not lost: the
count stands beside the record.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tunesmith.memory.store import Store
from tunesmith.tools.serving import restarts, server_record


def main() -> int:
    """Write one event."""
    record = Path(sys.argv[1])
    server, happened = server_record.read(record), restarts.read(record)
    if server is None:
        return 1
    Store(record.parent.parent).event(
        "server.given_up" if happened.gave_up else "server.restarted",
        run=server.facts.run or None,
        server=server.id,
        model=server.facts.model or server.model,
        restarts=happened.count,
        why=happened.why,
        gave_up=happened.gave_up,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
