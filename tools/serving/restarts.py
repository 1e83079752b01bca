"""How often the engine of a deployed server was started again, and when that is given up.

It lies in RECORD.restarts, beside the server's record. Standard library only: the supervisor imports it, and that sits
beside the server for as long as it runs.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FIRST_S, LONGEST_S = 2.0, 60.0
"""Before the first restart, and before any: it doubles from one to the next."""
MOST_IN_A_ROW = 5
"""An engine that dies so often at its start has a reason that waiting does not remove."""
STEADY_S = 600.0
"""An engine that ran so long did not end at its start: the next restart is the first of a row."""
GAVE_UP = 78
"""The supervisor's exit code then (EX_CONFIG); systemd is told not to start it again after that."""


@dataclass(frozen=True)
class Restarts:
    """What happened to one deployment so far."""

    count: int = 0
    """Since it was deployed."""
    in_a_row: int = 0
    """Without a steady run in between."""
    why: str = ""
    """How the engine ended last."""
    gave_up: str = ""
    """Why it is not started again; empty while it is."""
    port_lost: bool = False
    """Whether another program took its port, which may have been sent the key: a boot does not mend that."""

    def after(self, ran_s: float, why: str) -> Restarts:
        """One more, or the end of them, after the engine ended by itself."""
        in_a_row = 1 if ran_s >= STEADY_S else self.in_a_row + 1
        if in_a_row > MOST_IN_A_ROW:
            quickly = f"within {STEADY_S / 60:.0f} min of its start"
            return replace(self, why=why, gave_up=f"{in_a_row} times in a row it ended {quickly}; the last time {why}")
        return Restarts(self.count + 1, in_a_row, why)

    def without_port(self, port: int) -> Restarts:
        """The end of them, where another program listens there."""
        reason = f"another program has port {port}, and may have been sent the key"
        return replace(self, gave_up=reason, port_lost=True)

    @property
    def wait_s(self) -> float:
        """How long to wait before this restart."""
        return float(min(FIRST_S * 2 ** (self.in_a_row - 1), LONGEST_S))


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        # As servers bind: old connections of a server that has ended do not take its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:  # taken
            return False
    return True


def file_of(record: Path) -> Path:
    """Where the restarts of the server of a record are written down."""
    return record.with_suffix(".restarts")


def read(record: Path) -> Restarts:
    """What is written down; nothing yet where nothing can be read."""
    try:
        known = json.loads(file_of(record).read_bytes())
        return Restarts(**{name: known[name] for name in Restarts.__dataclass_fields__ if name in known})
    except (OSError, ValueError, TypeError):  # never restarted, or cut off in writing: it counts anew
        return Restarts()


def write(record: Path, restarts: Restarts) -> None:
    """Write it down, whole."""
    part = file_of(record).with_suffix(".restarts.part")
    part.write_text(json.dumps(asdict(restarts)))
    part.replace(file_of(record))
