"""What a server's record says of places: its folder of records, its model and its log, as they are now.

The home may be moved while the server runs. A record that was copied along with a home is the original's, not ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.memory.places import Places
from tunesmith.tools.serving.spec import ServerSpec


def placed(record: Path, spec: ServerSpec, log: Path) -> dict[str, object]:
    """What a new record says of places; its folder is there then."""
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    places = Places(record.parent.parent)
    log_path = places.stored(str(log.absolute()))
    return {"books": _books(record), "spec": places.stored(spec.model_dump()), "log": log_path}


def read_record(record: Path) -> dict[str, Any]:
    """A record with its places as they are now. Raises OSError and ValueError where it cannot be read now."""
    data: dict[str, Any] = json.loads(record.read_text())
    places = Places(record.parent.parent)
    return data | {name: places.present(data[name]) for name in ("spec", "log") if name in data}


def is_a_copy(record: Path, data: Mapping[str, object]) -> bool:
    """Whether a record was copied here with a home that goes on elsewhere: its server is on the books there."""
    return data.get("books", _books(record)) != _books(record)


def _books(record: Path) -> list[int]:
    """Which folder of records this is: one that is moved on its disk stays the same, and a copy is another one."""
    folder = record.parent.stat()
    return [folder.st_dev, folder.st_ino]
