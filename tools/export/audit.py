"""The audit of saved bytes: what a model's own files say of it, set against the model that it was made from.

Nothing is loaded: headers are parsed, tensors are mapped one at a time, and every fault names the tensor or the file.
What every model is asked stands here: whole shards, an index that is theirs, finite values, the base's text side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Step
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.models.tensor_file import INDEX_NAME, SINGLE_NAME, TensorPlace, read_places
from tunesmith.tools.models.tensor_values import FLOATS, not_finite

CARRIED = {
    "tokenizer.json": "tokenizer", "tokenizer_config.json": "tokenizer", "special_tokens_map.json": "tokenizer",
    "vocab.json": "tokenizer", "merges.txt": "tokenizer", "tokenizer.model": "tokenizer",
    "chat_template.jinja": "chat template", "generation_config.json": "generation config",
}  # fmt: skip
"""What makes the text side of a model, taken over as it is at every hop, and what a file of it is called."""
FALLEN_BACK = "gptq_fallbacks"
"""In a quantized model's record: how many layers GPTQ only rounded to the nearest step; absent where none."""
_MOST_FAULTS = 20
"""Faults that a record lists: where another model's files lie, every tensor is one."""
Places = Mapping[str, TensorPlace]


class Fault(Frozen):
    """One thing that the bytes should not say."""

    kind: str
    where: str
    """The tensor or the file."""
    says: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where} {self.says}"


class Audit(Frozen):
    """What the saved bytes of a model say, as its step records it."""

    model: str
    """The arm that it is."""
    against: str = ""
    """The artifact or folder that it was held against."""
    tensors: int = 0
    bytes: int = 0
    unchanged: int = 0
    """Tensors with the values that they had before."""
    updated: int = 0
    """Weights that carry the adapter's update."""
    recomputed: int = 0
    """Of these, those of which rows, drawn by seed, were computed again, value by value."""
    update_error: float | None = None
    """Over these: ‖merged − (base + update)‖ ÷ ‖update‖; 1 where nothing was merged, the rest is rounding."""
    quantized_layers: int = 0
    decoded: int = 0
    """Of these, drawn by seed, those whose codes and scales were multiplied out again."""
    weight_error: float | None = None
    """Over these: ‖decoded − merged‖ ÷ ‖merged‖, the median layer."""
    fallbacks: int = 0
    """Of the quantized layers, those that GPTQ only rounded to the nearest step, as the work itself counted them."""
    faults: tuple[Fault, ...] = ()
    further_faults: int = 0

    @classmethod
    def of(cls, step: Step) -> Audit | None:
        """The audit that a step reported; None where it is not done, or an earlier version did it."""
        try:
            return cls.model_validate(step.report["audit"]) if step.report.get("audit") else None
        except ValidationError:
            return None

    @property
    def refusal(self) -> str:
        """Why the model must not be used, in one line; empty where nothing speaks against it."""
        if not self.faults:
            return ""
        more = len(self.faults) - 1 + self.further_faults
        return f"the saved {self.model} fails its audit: {self.faults[0]}" + (f"; and {more} more" if more else "")

    @property
    def summary(self) -> str:
        """One sentence for a report."""
        if self.faults:
            return f"{self.refusal[0].upper()}{self.refusal[1:]}."
        clauses = [
            f"{self.tensors} tensors, all finite",
            f"{self.unchanged} as in {self.against or 'the model before'}",
        ]
        if self.updated:
            rounding = "" if self.update_error is None else f" (rounding is {self.update_error:.1%} of the update)"
            clauses.append(
                f"{self.updated} carry the adapter's update, rows of {self.recomputed} computed again{rounding}"
            )
        if self.quantized_layers:
            error = "" if self.weight_error is None else f" (median weight error {self.weight_error:.1%})"
            clauses.append(f"{self.quantized_layers} layers quantized, {self.decoded} of them decoded again{error}")
        if self.fallbacks:
            clauses.append(fallbacks_sentence(self.fallbacks, self.quantized_layers))
        return f"{'; '.join(clauses)}; tokenizer, chat template and generation config unchanged."


def fallbacks_sentence(fallbacks: int, layers: int) -> str:
    """How many layers GPTQ could not round by its own way, and what to try; `layers` 0: of how many is not known."""
    of = f" of {layers}" if layers else ""
    return (
        f"{fallbacks}{of} layers were rounded to the nearest step instead of by GPTQ, because their Hessian could not "
        "be inverted: try more calibration_tokens, or rounding=autoround"
    )


def with_faults(audit: Audit, faults: list[Fault]) -> Audit:
    """The audit with the first of its faults, and how many there are beside."""
    return audit.model_copy(
        update={"faults": tuple(faults[:_MOST_FAULTS]), "further_faults": len(faults[_MOST_FAULTS:])}
    )


class Weights(NamedTuple):
    """All tensors of a folder, and what is wrong with its files."""

    places: dict[str, TensorPlace]
    faults: list[Fault]


def read_weights(folder: Path) -> Weights:
    """Every tensor of every safetensors file in a folder; whole or not, nothing is raised."""
    faults: list[Fault] = []
    index = _index(folder, faults)
    files = sorted(folder.glob("*.safetensors"))
    named = set(index.values()) if index is not None else {SINGLE_NAME}
    faults += [
        Fault(kind="missing shard", where=name, says="is not in the folder")
        for name in sorted(named - {file.name for file in files})
    ]
    faults += [
        Fault(kind="extra file", where=file.name, says="belongs to no model here")
        for file in files
        if file.name not in named
    ]
    places: dict[str, TensorPlace] = {}
    unread = set()
    for file in files:
        try:
            in_file = read_places(file)
        except (BadInput, OSError) as error:  # a fault among others: the rest is audited too
            unread.add(file.name)
            faults.append(Fault(kind="truncated file", where=file.name, says=f"cannot be read: {error}"))
            continue
        faults += _twice(places, in_file)
        places |= in_file
    faults += _stale(index or {}, places, unread) if index is not None else []
    return Weights(places, faults)


def _index(folder: Path, faults: list[Fault]) -> dict[str, str] | None:
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text())
        return {str(name): str(shard) for name, shard in document["weight_map"].items()}
    # a stranger's JSON may be of any shape
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        faults.append(Fault(kind="stale index", where=INDEX_NAME, says=f"is no index: {error}"))
        return {}


def _twice(places: Places, in_file: Places) -> Iterator[Fault]:
    for name in sorted(places.keys() & in_file.keys()):
        files = f"{places[name].path.name} and {in_file[name].path.name}"
        yield Fault(kind="extra tensor", where=name, says=f"is in both {files}")


def _stale(index: Mapping[str, str], places: Places, unread: set[str]) -> Iterator[Fault]:
    for name, shard in sorted(index.items()):
        place = places.get(name)
        if place is None and shard not in unread:
            yield Fault(kind="stale index", where=name, says=f"is put into {shard} by the index, which lacks it")
        elif place is not None and place.path.name != shard:
            yield Fault(kind="stale index", where=name, says=f"is in {place.path.name}, the index says {shard}")
    for name in sorted(places.keys() - index.keys()):
        yield Fault(kind="stale index", where=name, says=f"is in {places[name].path.name}, the index does not name it")


def not_finite_faults(places: Places) -> Iterator[Fault]:
    """The float tensors that hold anything but numbers."""
    named = [name for name, place in places.items() if place.spec.dtype in FLOATS]
    with ThreadPoolExecutor() as pool:  # numpy lets other threads run while it computes
        counts = pool.map(lambda name: not_finite(places[name]), named)
        for name, count in zip(named, counts, strict=True):
            if count:
                yield Fault(kind="not finite", where=name, says=f"has {count} values that are infinite or not a number")


def text_side_faults(folder: Path, before: Path) -> Iterator[Fault]:
    """Files of the text side that are not, byte for byte, those of the model before, or are not there before or now."""
    for name, kind in CARRIED.items():
        now, then = folder / name, before / name
        if now.is_file() != then.is_file():
            says = f"was not in {before}" if now.is_file() else f"is missing; {before} has it"
            yield Fault(kind=kind, where=name, says=says)
        elif now.is_file() and now.read_bytes() != then.read_bytes():
            yield Fault(kind=kind, where=name, says=f"is not that of {before}")


def name_faults(saved: Places, expected: Places | Mapping[str, object], optional: set[str]) -> Iterator[Fault]:
    """Tensors that should be there and are not, and those that should not."""
    for name in expected:
        if name not in saved and name not in optional:
            yield Fault(kind="missing tensor", where=name, says="is not in the saved model")
    for name in saved:
        if name not in expected:
            yield Fault(kind="extra tensor", where=name, says="is in the saved model, and nothing asks for it")
