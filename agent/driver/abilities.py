"""What is known of a driver, by its examination and by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, TypeAdapter

from tunesmith.agent.driver.endpoint import Driver
from tunesmith.agent.exam import EXAM, Level
from tunesmith.memory.files import atomic_write

_FILE = "driver-probe.json"


class Record(BaseModel, frozen=True, extra="forbid"):
    """What is kept of one driver with one set of settings."""

    level: Level | None = None
    """None: it was not examined yet."""
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    context_tokens: int = 0
    """With which it was examined."""
    thinks: bool = False
    exam: str = ""
    agreed: bool | None = None
    """Whether the user let tokens go for its examination; None: nobody was asked."""


_RECORDS = TypeAdapter(dict[str, Record])


def record_of(home: Path, key: str) -> Record:
    """What is known of the driver that is kept under this key; of another examination only what was agreed to."""
    record = _records(home).get(key, Record())
    return record if record.exam == EXAM else Record(agreed=record.agreed)


def keep(home: Path, key: str, record: Record) -> None:
    """Write down what was found of a driver, beside what is known of others."""
    atomic_write(home / _FILE, _RECORDS.dump_json({**_records(home), key: record}, indent=1))


def _records(home: Path) -> dict[str, Record]:
    try:
        return _RECORDS.validate_json((home / _FILE).read_bytes())
    except (OSError, ValueError):  # none yet, or of a version that kept one driver alone
        return {}


class Known(NamedTuple):
    """What a turn goes by."""

    level: Level
    context_tokens: int
    thinks: bool


def known(driver: Driver) -> Known:
    """What is known of a driver by now: the level as set, else as examined; code answers before either."""
    key, context_tokens = driver.seen()
    record, routing = record_of(driver.home, key), driver.chosen.routing
    level: Level = record.level or "fallback"
    if routing != "auto":
        level = "fallback" if routing else "native"
    return Known(level, context_tokens, record.thinks)
