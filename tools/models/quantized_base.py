"""The quantized base before there is one: rounded here, or an existing quantized checkpoint that is taken as it.

What such a checkpoint is called, what its files say of it before anything is copied, and what either way costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import read_manifest
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import expanded, is_there, looks_like_path
from tunesmith.tools.core.stage import GIB, Facts
from tunesmith.tools.models.folder import check_model_folder, fingerprint, sealed_as
from tunesmith.tools.models.hub import inspect_hub
from tunesmith.tools.models.measuring import FOUR, QUANTIZED_BASE, Measuring, quantized_bytes
from tunesmith.tools.models.memory_math import RUNTIME_BYTES, rounding_memory_bytes
from tunesmith.tools.models.model_files import wanted_files
from tunesmith.tools.models.packing import Packing
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import holding_seconds, rounding_seconds

UNKNOWN = "size unknown (the hub cannot be reached)"
FOLDER_PIN = "quantized folder"
TAKEN = ("quantized_source", "quantized_revision", "quantized_fingerprint")
"""Where a quantized base's record says what it was taken from; one that was made here has none of them."""
_HELD_AT_ONCE = GIB // 8
"""Of an audit, beside the runtime: some rows of a layer and of the base's in each of eight threads."""
_AT_COMMIT = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)@([0-9a-f]{40})")
_SIZES = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "intermediate": "intermediate_size", "vocab": "vocab_size",
    "heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "head_dim": "head_dim",
    "experts": "the number of experts", "expert_intermediate": "the width of an expert",
    "shared_intermediate": "the width of the shared experts",
}  # fmt: skip
_OTHERWISE = ("model_type", "hidden_act", "rms_norm_eps", "rope_theta")


class Source(NamedTuple):
    """Where a quantized checkpoint comes from."""

    name: str
    """A folder, or a hub id."""
    revision: str = ""
    """Of a hub id: its commit."""

    @classmethod
    def of(cls, quantized: str) -> Source:
        """Read it. Raises BadInput."""
        if match := _AT_COMMIT.fullmatch(quantized):
            return cls(match[1], match[2])
        if looks_like_path(quantized) or is_there(quantized):
            return cls(quantized)
        raise BadInput(
            f"quantized={quantized[:100]} is neither a folder nor a hub id at a commit; give a folder, or org/name@ "
            "and the 40 hex digits shown on its hub page"
        )

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f"{self.name}@{self.revision[:12]}" if self.revision else self.name


@dataclass(frozen=True, slots=True)
class Existing:
    """What is known of a quantized checkpoint before it is taken."""

    source: Source
    bytes: int | None = None
    """None: the hub could not be asked."""
    fingerprint: str = ""
    """Of a folder."""
    config: Mapping[str, object] = field(default_factory=dict)
    sealed: str = ""
    """Of a folder with a manifest: the digest that stands there."""

    @property
    def record(self) -> dict[str, str]:
        """What the record of the quantized base says of it."""
        return dict(zip(TAKEN, (self.source.name, self.source.revision, self.fingerprint), strict=True))


def refuse_beside(quantized: str, role: str, measuring: str) -> None:
    """Raise BadInput where the rest of a request leaves no place for a quantized checkpoint."""
    if role != "base":
        raise BadInput(f"quantized={quantized} is for a base; a {role} answers as it is stored: leave quantized out")
    if measuring not in ("auto", FOUR):
        raise BadInput(
            f"quantized={quantized} is what is measured at 4 bits, and measuring={measuring} measures something else; "
            "leave one of the two out"
        )


def inspect_existing(quantized: str, base: Mapping[str, object]) -> Existing:
    """Read a folder's headers, or the hub's list of files, and refuse what cannot be the base of this config quantized.

    Raises BadInput, with the figure. What the hub does not tell now is refused at work, before any weight is fetched.
    """
    source = Source.of(quantized)
    if source.revision:
        try:
            found = inspect_hub(source.name, source.revision)
        except StepFailed:
            return Existing(source)  # the plan says that nobody knows
        refuse_other(found.config, base, source)
        return Existing(source, found.bytes, config=found.config)
    folder = expanded(source.name)
    config = check_model_folder(folder, need_chat_template=False).config
    refuse_other(config, base, source)
    size = sum(wanted_files(folder).values())
    return Existing(source, size, fingerprint(folder), config, sealed_as(folder))


def refuse_other(config: Mapping[str, Any], base: Mapping[str, Any], source: Source) -> None:
    """Raise BadInput where a config is not that of the base, quantized in a way that can be held against it."""
    if base.get("quantization_config"):
        raise BadInput(f"quantized={source.title} is measured for a base of 16 bits, and this base is quantized "
                       "already; leave quantized out")  # fmt: skip
    Packing.of(config, source.title)
    for what, now, then in _differences(config, base):
        raise BadInput(
            f"quantized={source.title} is another model: {what} is {now} there and {then} in the base; give a "
            "checkpoint that was made from this base, or leave quantized out"
        )


def _differences(config: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """What both configs say, and say otherwise."""
    now, then = ({**one, **one.get("text_config", {})} for one in (config, base))
    for name in _OTHERWISE:
        pair = [one.get(name, (one.get("rope_parameters") or {}).get(name)) for one in (now, then)]
        if None not in pair and pair[0] != pair[1]:
            yield name, pair[0], pair[1]
    if not base:
        return
    try:
        sizes = ModelShape.of(config)
    except (KeyError, TypeError, ValueError) as error:
        yield str(error).strip("'"), "not told", "known"
        return
    known = ModelShape.of(base)
    for attribute, name in _SIZES.items():
        if getattr(sizes, attribute) != getattr(known, attribute):
            yield name, getattr(sizes, attribute), getattr(known, attribute)


def is_quantized_here(model: str, revision: str, existing: Existing | None, store: Store) -> bool:
    """Whether the quantized base of a model stands below models/: the one made here, or what was taken from there."""
    made = store.copies_of(model, revision, QUANTIZED_BASE)
    wanted = existing.record if existing else {}
    same = [one for one in made if {name: one.meta[name] for name in TAKEN if name in one.meta} == wanted]
    return any(read_manifest(one.path) is not None for one in same)


def taken(source: Source) -> Measuring:
    """How a base is measured that an existing quantized checkpoint answers for."""
    return Measuring(FOUR, f"{source.title} is taken as its quantized base")


class Making(NamedTuple):
    """What a quantized base costs."""

    seconds: float = 0.0
    ram_bytes: int = 0
    bytes: int = 0
    steps: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    kind: str = ""
    """Of the work, beside that of getting the base."""

    @classmethod
    def of(cls, config: Mapping[str, object], existing: Existing | None, facts: Facts, *, here: bool) -> Making:
        """By the base's config and what was found of an existing one; little where it is here already."""
        if here:
            return cls(steps=("verify its quantized base, which is here already",))
        return cls._taken(config, existing, facts) if existing else cls._rounded(config, facts)

    @classmethod
    def _rounded(cls, config: Mapping[str, object], facts: Facts) -> Making:
        known = bool(config)
        bytes_ = quantized_bytes(config) if known else 0
        return cls(
            rounding_seconds(config, facts.processor_rates).total if known else 0.0,
            rounding_memory_bytes(config) if known else RUNTIME_BYTES,
            bytes_,
            (
                "round its linear layers to 4 bits, without data and one tensor at a time; head, embeddings, routers "
                "and gates stay",
                "audit the saved tensors of this quantized base against the base's own",
            ),
            _writes(bytes_, "" if known else UNKNOWN),
            "quantized",
        )

    @classmethod
    def _taken(cls, config: Mapping[str, object], existing: Existing, facts: Facts) -> Making:
        """A download at 20 MB a second, or a copy; where the hub told no size, the plan says so."""
        source, bytes_ = existing.source, existing.bytes or 0
        size = UNKNOWN if existing.bytes is None else f"{bytes_ / GIB:.2f} GiB"
        known = bool(config)
        if source.revision:
            seconds = 5 + bytes_ / 2e7 if existing.bytes is not None else 120.0
            unpriced = ": neither its time nor its disk is in this price" if existing.bytes is None else ""
            got = f"download {source.title}, {size}{unpriced}"
        else:
            seconds, got = 1 + bytes_ / 4e8, f"copy {size}: {source.title}"
        steps = (
            f"{got}; its weights and how they are quantized are taken, tokenizer and template are the base's",
            "hold every tensor of it against the base's own, one at a time: what is stored whole has to be equal, what "
            "is quantized to decode to it",
        )
        held = holding_seconds(config, facts.processor_rates).total if known else 0.0
        return cls(seconds + held, RUNTIME_BYTES + _HELD_AT_ONCE, bytes_, steps, _writes(bytes_, size), "taken")


def _writes(bytes_: int, size: str = "") -> tuple[str, ...]:
    return (f"models/ again ({size or f'{bytes_ / GIB:.2f} GiB'}): the quantized base, for measuring alone",)
