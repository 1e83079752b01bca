"""A server on the books: its record in HOME/servers, with its places as they are now.

The home may be moved while the server runs. A record that was copied along with a home is the original's, not ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.memory.json_values import as_float, as_int, as_object
from tunesmith.memory.places import Places
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.serving import restarts
from tunesmith.tools.serving.listeners import Listener
from tunesmith.tools.serving.restarts import Restarts
from tunesmith.tools.serving.spec import LOOPBACK, ServerSpec


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is recorded of a deployed server beside how it runs; all empty for any other one."""

    artifact: str = ""
    """The deployment that it belongs to."""
    arm: str = ""
    run: str = ""
    model: str = ""
    """What requests ask for: the served name, or an adapter's."""


_NO_FACTS = ServerFacts()


@dataclass(frozen=True, slots=True)
class Server:
    """A server on the books."""

    id: str
    spec: ServerSpec
    port: int
    role: str
    process: ProcessId
    """Its parent, which leads its process group."""
    record: Path
    log: Path
    engine: str
    facts: ServerFacts = _NO_FACTS
    owner: str = ""
    """The step that started it, or who else did."""
    loader_key: str = field(default="", repr=False)
    """Opens the routes that load adapters, beside the key; empty for a server of an earlier version, which no guard
    stands before."""
    gpu: str = ""
    """The GPU that it was pinned to, as CUDA_VISIBLE_DEVICES names it; empty on the CPU."""
    gpu_bytes: int = 0
    """What it may take of that."""

    @property
    def runs(self) -> bool:
        """Whether its parent lives; one that is deployed and does not is down, and may come back."""
        return self.process.alive()

    @property
    def restarts(self) -> Restarts:
        """How often its engine was started again."""
        return restarts.read(self.record)

    @property
    def url(self) -> str:
        """Without the `/v1` of the OpenAI endpoint."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def listener(self) -> Listener:
        """Who must be behind its port."""
        return Listener(self.port, self.process)

    @property
    def model(self) -> str:
        """The name to put into a request's `model`."""
        return self.spec.served_name

    @property
    def pid(self) -> int:
        """Pid of the process that leads the server's group."""
        return self.process.pid

    @property
    def key_file(self) -> Path:
        """The file that holds the key, readable by its owner only."""
        return self.record.with_suffix(".key")

    @property
    def key(self) -> str:
        """The API key."""
        return self.key_file.read_text()


def placed(record: Path, spec: ServerSpec, log: Path) -> dict[str, object]:
    """What a new record says of places; its folder is there then."""
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # keys lie in it
    places = Places(record.parent.parent)
    log_path = places.stored(str(log.absolute()))
    return {"books": _books(record), "spec": places.stored(spec.model_dump()), "log": log_path}


def read_record(record: Path) -> dict[str, object]:
    """A record with its places as they are now. Raises OSError and ValueError where it cannot be read now."""
    data: dict[str, object] = json.loads(record.read_text())
    places = Places(record.parent.parent)
    return data | {name: places.present(data[name]) for name in ("spec", "log", "adapters") if name in data}


def is_a_copy(record: Path, data: Mapping[str, object]) -> bool:
    """Whether a record was copied here with a home that goes on elsewhere: its server is on the books there."""
    return data.get("books", _books(record)) != _books(record)


def _books(record: Path) -> list[int]:
    """Which folder of records this is: one that is moved on its disk stays the same, and a copy is another one."""
    folder = record.parent.stat()
    return [folder.st_dev, folder.st_ino]


def read(record: Path) -> Server | None:
    """The server of a record; None where nobody can say yet which process it is, and for a copy, which is forgotten."""
    try:
        data = read_record(record)
        if is_a_copy(record, data):
            forget(record)
            return None
        data |= _supervisor_identity(record)
        known = as_object(data["spec"]).items()
        spec = ServerSpec.model_validate({k: v for k, v in known if k in ServerSpec.model_fields})
        process = _process(data)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # being written or being stopped right now, or of another version
    return Server(
        id=record.stem,
        spec=spec,
        port=as_int(data["port"]),
        role=str(data["role"]),
        process=process,
        record=record,
        log=Path(str(data["log"])),
        engine=str(data.get("engine", "")),
        facts=_facts(as_object(data.get("meta", {}))),
        owner=str(data.get("owner", "")),
        loader_key=str(data.get("loader_key", "")),
        gpu=str(as_object(data.get("env", {})).get("CUDA_VISIBLE_DEVICES", "")),
        gpu_bytes=as_int(data.get("gpu_bytes", 0)),
    )


def _supervisor_identity(record: Path) -> dict[str, object]:
    """Its supervisor says itself who it is: whoever started it may have died before it wrote that down, and after a
    boot it is another process than the record names."""
    try:
        return as_object(json.loads(record.with_suffix(".pid").read_text()))
    except (OSError, ValueError, TypeError):  # not said yet, or cut off in writing
        return {}


def named(me: ProcessId) -> dict[str, object]:
    """A process, as a record names it."""
    named = {"pid": me.pid, "pid_started": me.started, "boot_id": me.boot_id, "pid_ticks": me.ticks}
    return {**named, "host": me.host, "pid_namespace": me.namespace}


def _facts(recorded: Mapping[str, object]) -> ServerFacts:
    """As another version may have written them."""
    known = ServerFacts.__dataclass_fields__
    return ServerFacts(**{name: str(value) for name, value in recorded.items() if name in known})


def _process(data: Mapping[str, object]) -> ProcessId:
    pid, started, ticks = as_int(data["pid"]), as_float(data["pid_started"]), data.get("pid_ticks")
    names = (str(data.get(name, "")) for name in ("host", "pid_namespace"))
    return ProcessId(pid, started, str(data["boot_id"]), None if ticks is None else as_int(ticks), *names)


def forget(record: Path) -> None:
    """Take a server off the books."""
    # The record first: who finds one finds its key beside it.
    for suffix in (".json", ".key", ".lease", ".pid", ".restarts", ".restarts.part"):
        record.with_suffix(suffix).unlink(missing_ok=True)
