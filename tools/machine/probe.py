"""What a device of this machine was measured to do, kept once for each device and version of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.rates import Rates

_FILE = "rates.json"
_SEPARATOR = " | torch "
_RECORDS: TypeAdapter[dict[str, Rates]] = TypeAdapter(dict[str, Rates])


def measured_rates(home: Path) -> Mapping[str, Rates]:
    """Device → its rates under the installed torch; empty where nothing was measured, or the file is no good."""
    mine = _SEPARATOR + _torch()
    return {key.removesuffix(mine): rates for key, rates in _records(home).items() if key.endswith(mine)}


def keep_rates(home: Path, device: str, rates: Rates) -> None:
    """Remember what was measured of a device, beside what is known of others."""
    records = {**_records(home), f"{device}{_SEPARATOR}{_torch()}": rates}
    atomic_write(home / _FILE, json.dumps({key: asdict(record) for key, record in records.items()}, indent=1))


def _records(home: Path) -> dict[str, Rates]:
    try:
        return _RECORDS.validate_json((home / _FILE).read_bytes())
    except (OSError, ValidationError):  # none yet, or of another version: measured again
        return {}


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:  # who plans may be without it; then only the usual rates are known
        return ""
