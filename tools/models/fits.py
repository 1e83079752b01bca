"""Would a model be trained, measured, merged, quantized and served: on this machine, or on a card of a size.

By the arithmetic that prices the steps (`memory_math`), from a config alone: a published family's, a folder's, or one
that is read from the hub; no weights are downloaded. What is said not to fit comes with the settings that do, best
first, and each of these was tried by the same arithmetic. Times are of the work named in `basis`; a card's is a range
of rates that nobody measured on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.tools.core.local_paths import expanded, looks_like_path
from tunesmith.tools.core.stage import GIB, Machine
from tunesmith.tools.models.base import bundled_name
from tunesmith.tools.models.hub import hub_config, newest_commit
from tunesmith.tools.models.memory_math import (
    CONTEXT_TOKENS,
    GPU_MARGIN_BYTES,
    SERVED_SEQUENCES,
    ServerMemory,
    kv_bytes_per_token,
    merge_memory_bytes,
    quantize_memory_bytes,
    quantize_vram_bytes,
    server_memory,
    train_memory_bytes,
)
from tunesmith.tools.models.model_names import NamedModel, named_model, usual_models

ROWS, ROW_TOKENS, EPOCHS = 600, 128, 2
"""The training whose time is told."""
_LONGEST, _BATCH, _RANK = 512, 8, 16
_CASES, _ANSWER_TOKENS = 150, 60
_SAMPLES, _SAMPLE_TOKENS = 128, 256
_CPU_FLOPS, _CARD_FLOPS = 3e11, 3e13
"""Reached in training: measured on two cores; on a card the lower end of what consumer cards are published to reach."""
_NF4_PACE = 0.73
"""Rate on 4-bit weights against 16-bit ones: 0.40 of the card's matrix rate where 0.55 is reached."""
_CPU_TOKENS, _CARD_TOKENS = 5.5e10, 5e12
"""Parameters times answered tokens in a second, many requests at once."""
_DISK = 4e8
_BYTES = {"bf16": 2.0, "W8A8": 1.1, "W4A16": 0.62}
"""Bytes a parameter has in a served file; at 4 bits scales and the embeddings' 16 bits are counted in."""
_CONFIG_BYTES = 1 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Room:
    """The memory and disk that there are to work with."""

    ram_bytes: int
    vram_bytes: int
    """0: there is no card, and everything is computed in RAM."""
    disk_bytes: int

    @property
    def on_card(self) -> bool:
        return self.vram_bytes > 0


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of work at one precision, at the settings that tunesmith would choose by itself."""

    task: str
    """train, measure, merge, quantize or serve."""
    precision: str
    fits: bool
    vram_bytes: int
    ram_bytes: int
    disk_bytes: int
    seconds: float
    basis: str
    """What the time is of."""
    try_: tuple[str, ...] = ()
    """Settings that fit, best first; empty where it fits as it is, or nothing does."""


@dataclass(frozen=True, slots=True)
class Fits:
    """A model against a machine."""

    model: str
    revision: str
    """The commit whose config was read; empty for a known family, a size, a folder."""
    parameters: int
    active_parameters: int
    tasks: tuple[Task, ...]
    approximate: bool = False
    """Whether the model only stands for the size that was named."""
    room: Room = field(default_factory=lambda: Room(0, 0, 0))


def room_of(machine: Machine, *, card_gib: float = 0.0) -> Room:
    """What this machine has free; with a card of this many GiB in it, all of the card's memory and of the RAM."""
    if card_gib:
        return Room(machine.ram_total_bytes, int(card_gib * GIB), machine.disk_free_bytes)
    ram = machine.ram_free_bytes + machine.swap_free_bytes
    return Room(ram, machine.vram_free_bytes if machine.gpus else 0, machine.disk_free_bytes)


def find_model(name: str, revision: str = "") -> tuple[NamedModel, str]:
    """The model that a name, a folder, a size or a hub id means, and the commit that was read, if one was.

    Raises BadInput for what is none of these, StepFailed where the hub has to be asked and cannot be reached.
    """
    try:
        folder = expanded(name)
        if looks_like_path(name) or folder.is_dir():
            return NamedModel(folder.resolve().name, _config_of(folder)), ""
    except TunesmithError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a NUL, ~somebody
        raise BadInput(f"{name[:80]!r} is no folder that can be read: {str(error)[:80]}") from None
    name = bundled_name(name)
    known = named_model(name)
    if known is not None and not (known.approximate and _HUB_ID.fullmatch(name)):
        return known, ""
    if _HUB_ID.fullmatch(name):
        try:
            commit = revision or newest_commit(name)
            return NamedModel(name, hub_config(name, commit)), commit
        except TunesmithError:
            if known is None:
                raise
            return known, ""
    usual = ", ".join(model.name for model in usual_models()[:6])
    raise BadInput(
        f"no model {name[:80]!r} is known; give a hub id (owner/name), a folder, a size (7b), or say {usual}"
    )


def _config_of(folder: Path) -> dict[str, object]:
    path = folder / "config.json"
    if not path.is_file():
        raise BadInput(f"{str(folder)[:300]} has no config.json; name the folder of a model")
    with path.open("rb") as file:
        text = file.read(_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no model's config: it is no JSON object")
    return config


def fits(model: NamedModel, room: Room, *, revision: str = "") -> Fits:
    """Every task for a model. Raises BadInput for a config without the sizes that decide."""
    try:
        shape = model.shape
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"the config of {model.name} does not say its sizes ({error}): no arithmetic can be done"
        ) from None
    tasks = (
        _train(model, room, "bf16"),
        _train(model, room, "nf4"),
        _served(model, room, "measure", "bf16"),
        _merge(model, room),
        _quantize(model, room),
        *(_served(model, room, "serve", precision) for precision in _BYTES),
    )
    return Fits(model.name, revision, shape.parameters, shape.active_parameters, tasks, model.approximate, room)


def _train(model: NamedModel, room: Room, precision: str) -> Task:
    four, shape = precision == "nf4", model.shape

    def need(*, batch_size: int = _BATCH, tokens: int = _LONGEST, checkpointing: bool) -> int:
        return train_memory_bytes(
            model.config,
            batch_size=batch_size,
            seq_len_tokens=tokens,
            lora_rank=_RANK,
            load_in_4bit=four,
            checkpointing=checkpointing,
        )

    there = room.vram_bytes if room.on_card else room.ram_bytes
    checkpointing = need(checkpointing=False) > there
    needed = need(checkpointing=checkpointing)
    rate = _CARD_FLOPS if room.on_card else _CPU_FLOPS
    tokens = ROWS * ROW_TOKENS * EPOCHS
    passes = 8 if checkpointing else 6
    rate *= _NF4_PACE if four else 1.0
    seconds = 18 + 2 * shape.parameters / _DISK + passes * tokens * shape.active_parameters / rate
    ways = (
        (f"micro_batch={rows}, max_seq_len_tokens={length}" if length < _LONGEST else f"micro_batch={rows}",
         lambda rows=rows, length=length: need(batch_size=rows, tokens=length, checkpointing=True))
        for length in (_LONGEST, 256, 128)
        for rows in (4, 2, 1)
    )  # fmt: skip
    return Task(
        "train",
        precision,
        needed <= there,
        needed if room.on_card else 0,
        0 if room.on_card else needed,
        12 * shape.lora_parameters(_RANK, experts=not four),
        seconds,
        f"{ROWS} rows of {ROW_TOKENS} tokens, {EPOCHS} epochs"
        + (", activations computed again" if checkpointing else ""),
        () if needed <= there else _fitting(ways, there),
    )


def _fitting(ways: Iterator[tuple[str, Callable[[], int]]], there: int) -> tuple[str, ...]:
    """The first of these settings that fits; they come with the least loss first."""
    return next(((says,) for says, need in ways if need() <= there), ())


def _served(model: NamedModel, room: Room, task: str, precision: str) -> Task:
    weights = int(model.parameters * _BYTES[precision])
    needed = _server(model, weights)
    fitting = _holds(needed, room)
    rate = _CARD_TOKENS if room.on_card else _CPU_TOKENS
    load = 30 + weights / _DISK
    answers = _CASES * _ANSWER_TOKENS * model.shape.active_parameters / rate if task == "measure" else 0.0
    smaller = [] if fitting or task == "measure" else [p for p in _BYTES if _BYTES[p] < _BYTES[precision]]
    tries = [f"scheme={p}" for p in smaller if _holds(_server(model, int(model.parameters * _BYTES[p])), room)]
    return Task(
        task,
        precision,
        fitting,
        needed.vram_bytes + GPU_MARGIN_BYTES if room.on_card else 0,
        0 if room.on_card else needed.ram_bytes,
        weights,
        load + answers,
        f"a server's start and {_CASES} answers of {_ANSWER_TOKENS} tokens" if answers else "a server's start",
        tuple(tries),
    )


def _server(model: NamedModel, weights: int) -> ServerMemory:
    return server_memory(
        weights,
        kv_bytes_per_token=kv_bytes_per_token(model.config),
        context_tokens=CONTEXT_TOKENS,
        sequences=SERVED_SEQUENCES,
    )


def _holds(needed: ServerMemory, room: Room) -> bool:
    if room.on_card:
        return needed.vram_bytes + GPU_MARGIN_BYTES <= room.vram_bytes
    return needed.ram_bytes <= room.ram_bytes


def _merge(model: NamedModel, room: Room) -> Task:
    whole = 2 * model.parameters
    needed = merge_memory_bytes(model.config, whole)
    return Task(
        "merge", "bf16", needed <= room.ram_bytes and whole <= room.disk_bytes, 0, needed, whole,
        20 + 3 * whole / _DISK, "reading, adding, writing and checking every shard",
    )  # fmt: skip


def _quantize(model: NamedModel, room: Room) -> Task:
    def need(samples: int) -> int:
        return quantize_memory_bytes(model.config, samples=samples, seq_len_tokens=_SAMPLE_TOKENS)

    ram, written = need(_SAMPLES), int(model.parameters * _BYTES["W4A16"])
    vram = quantize_vram_bytes(model.config, batch_rows=8, seq_len_tokens=_SAMPLE_TOKENS) if room.on_card else 0
    rate = _CARD_FLOPS if room.on_card else _CPU_FLOPS
    fitting = ram <= room.ram_bytes and vram <= room.vram_bytes and written <= room.disk_bytes
    ways = ((f"calibration_samples={samples}", lambda samples=samples: need(samples)) for samples in (64, 32, 16))
    return Task(
        "quantize", "W4A16", fitting, vram, ram, written,
        30 + 2 * model.parameters / _DISK + 4 * _SAMPLES * _SAMPLE_TOKENS * model.shape.active_parameters / rate,
        f"GPTQ with {_SAMPLES} samples of {_SAMPLE_TOKENS} tokens",
        () if fitting or vram > room.vram_bytes else _fitting(ways, room.ram_bytes),
    )  # fmt: skip


def to_json(found: Fits) -> dict[str, object]:
    """The documented shape."""
    tasks = [
        {
            "task": task.task,
            "precision": task.precision,
            "fits": task.fits,
            "vram_bytes": task.vram_bytes,
            "ram_bytes": task.ram_bytes,
            "disk_bytes": task.disk_bytes,
            "seconds": round(task.seconds, 1),
            "basis": task.basis,
            "try": list(task.try_),
        }
        for task in found.tasks
    ]
    return {
        "model": found.model,
        "revision": found.revision,
        "parameters": found.parameters,
        "active_parameters": found.active_parameters,
        "approximate": found.approximate,
        "room": {"ram_bytes": found.room.ram_bytes, "vram_bytes": found.room.vram_bytes},
        "tasks": tasks,
    }
