"""What left this machine: an event for every contact with another one, by host, requests and bytes, never by text.

A contact is recorded before its first request, so that a killed process leaves a trace, and again with its counts at
its end.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.memory.store import Store
from tunesmith.tools.serving.addresses import Address

_OPENED, _CLOSED = "host.contacted", "host.left"


@dataclass(slots=True)
class Traffic:
    """Requests to one host, and the bytes of their bodies and of the answers'."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContactLog:
    """Writes the contacts with one host into a home's store; nothing where the host is this machine.

    A store that is busy or full keeps nothing from being sent: it is the record that suffers.
    """

    home: Path
    address: Address
    purpose: str
    """What was asked there: driver, or judge."""
    run: str | None = None
    step: str | None = None

    def opened(self) -> None:
        """Before the first request leaves."""
        self._write(_OPENED)

    def closed(self, traffic: Traffic) -> None:
        """Once no more will leave."""
        self._write(_CLOSED, **asdict(traffic))

    def _write(self, event: str, **counts: int) -> None:
        if self.address.is_loopback:
            return
        # a record of a contact must not end the work; the store is locked or full
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(Store(self.home)) as store:
            store.event(event, run=self.run, step=self.step, host=self.address.place, purpose=self.purpose, **counts)


@dataclass(frozen=True, slots=True)
class Contacts:
    """All contacts with one host for one purpose; counts are None where they were not kept."""

    host: str
    purpose: str
    last_at: float = 0.0
    contacts: int = 0
    requests: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    uncounted: int = 0
    """Contacts that never told their end, since their process was killed or is still at it: the counts lack theirs."""


def contacts(store: Store) -> list[Contacts]:
    """What is recorded of contacts with other machines, the newest first."""
    totals = dict[tuple[str, str], Contacts]()
    for row in store.read("SELECT at, event, data FROM events WHERE event IN (?, ?) ORDER BY id", _OPENED, _CLOSED):
        data, ended = json.loads(row["data"]), row["event"] == _CLOSED
        key = (str(data.get("host", "")), str(data.get("purpose", "")))
        before = totals.pop(key, Contacts(*key))
        totals[key] = Contacts(
            *key,
            last_at=row["at"],
            contacts=before.contacts + (not ended),
            requests=(before.requests or 0) + data.get("requests", 0),
            sent_bytes=(before.sent_bytes or 0) + data.get("sent_bytes", 0),
            received_bytes=(before.received_bytes or 0) + data.get("received_bytes", 0),
            uncounted=before.uncounted + (-1 if ended else 1),
        )
    return list(reversed(totals.values()))
