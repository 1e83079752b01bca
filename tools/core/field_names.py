"""What other programs call the fields of our requests: trl, transformers, axolotl, Unsloth, LLaMA-Factory, vLLM.

A name is taken where it means the very same; where it means nearly the same, what ours means is said instead. Stages
are not named here: a name counts wherever a request has the field that it stands for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from pydantic.fields import FieldInfo

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.auto import is_open

_ALSO_CALLED: Mapping[str, tuple[str, ...]] = {
    # train, preflight
    "lora_rank": ("lora_r", "r"),
    "learning_rate": ("lr",),
    "epochs": ("num_train_epochs", "num_epochs", "n_epochs"),
    "max_seq_len_tokens": ("max_length", "max_seq_length", "max_seq_len", "sequence_len", "cutoff_len"),
    "micro_batch": ("per_device_train_batch_size", "micro_batch_size"),
    "activation_checkpointing": ("gradient_checkpointing",),
    "precision": ("dtype", "torch_dtype"),
    "seed": ("random_state",),
    # base
    "model": ("base_model", "model_name_or_path", "model_name", "model_id"),
    "revision": ("model_revision", "revision_of_model"),
    # critique, import
    "valid_share": ("val_set_size", "val_size"),
    "limit": ("max_samples",),
    # baseline, evaluate, deploy
    "context_tokens": ("max_model_len", "num_ctx", "n_ctx"),
    "max_tokens": ("max_new_tokens", "max_completion_tokens"),
    # quantize
    "calibration_samples": ("num_calibration_samples",),
}
_OURS = {other: name for name, others in _ALSO_CALLED.items() for other in others}

_SCHEDULE = "there is none to choose: the rate rises by warmup_ratio and falls by a cosine"
_PACKING = "there is none to choose: rows are packed where the model keeps them apart"
_ADAMW = "there is none to choose: it is AdamW"
_NEARLY: Mapping[str, tuple[str, str]] = {
    "gradient_accumulation_steps": (
        "batch_size",
        "batch_size is all rows of an optimiser step and micro_batch those in memory at once; it is their quotient: "
        "2 rows at once, accumulated 4 times, are batch_size=8 micro_batch=2",
    ),
    "total_batch_size": ("batch_size", "batch_size is it: all rows of an optimiser step"),
    "warmup_steps": ("warmup_ratio", "warmup_ratio is a share of all steps: 0.05 is every twentieth"),
    "bf16": ("precision", "precision is that of the frozen base's arithmetic: bf16, which is the default, or fp32"),
    "fp16": ("precision", "precision takes bf16, which is the default, or fp32"),
    "load_in_8bit": ("load_in_4bit", "the frozen base is held at 16 bits, or at 4 with load_in_4bit=true"),
    "weight_decay": ("learning_rate", "there is none to set"),
    "optim": ("learning_rate", _ADAMW),
    "optimizer": ("learning_rate", _ADAMW),
    "lr_scheduler_type": ("warmup_ratio", _SCHEDULE),
    "lr_scheduler": ("warmup_ratio", _SCHEDULE),
    "packing": ("max_seq_len_tokens", _PACKING),
    "sample_packing": (
        "max_seq_len_tokens",
        _PACKING,
    ),
    "on": ("run", "it works on files or a port of this machine; to another one can go inspect, baseline, generate, "
           "critique, preflight, train, evaluate, merge and quantize"),
    "map": ("mapping", """mapping is it, as JSON: mapping='{"user": "COLUMN", "assistant": "COLUMN"}'"""),
    "limit": ("cases_per_block", "cases_per_block is of each block: target, general, tools and near misses"),
}  # fmt: skip
"""Another program's name → a field that a request of ours has where it is asked for, and what is to be said of it."""


class OurNames(NamedTuple):
    """Fields under our names."""

    fields: dict[str, object]
    typed: dict[str, str]
    """Field → its name as it was typed, where that is another one."""
    notes: tuple[str, ...] = ()
    """What is said of those that came under another program's name."""


def ours(name: str, known: Collection[str]) -> str:
    """The field that a name stands for in a request with the `known` fields; else the name itself."""
    plain = name.replace("-", "_")
    return plain if plain in known else field if (field := _OURS.get(plain, "")) in known else name


def others(known: Collection[str]) -> dict[str, str]:
    """Every other name that a request with the `known` fields takes → its field."""
    return {other: name for other, name in _OURS.items() if name in known and other not in known}


def our_names(
    given: Mapping[str, object], known: Mapping[str, FieldInfo], typed: Mapping[str, str] | None = None
) -> OurNames:
    """What was given, under our names; `typed`: as they were typed. Raises BadInput where a field has two values.

    A number that has been written for `auto` is said: who types 0 may have meant none.
    """
    fields: dict[str, object] = {}
    names: dict[str, str] = {}
    notes = []
    for name, value in given.items():
        field, as_typed = ours(name, known), (typed or {}).get(name, name)
        if field in fields and str(fields[field]) != str(value):
            raise BadInput(
                f"{names[field]} is {fields[field]} and {as_typed} is {value}, and both set {field}; leave one out"
            )
        fields[field], names[field] = value, as_typed
        if field != name:
            notes.append(f"{name} is {field} here")
        number = _number(value)
        if field in known and isinstance(number, int | float) and is_open(known[field], number):
            notes.append(f"{field}={value} is auto here: {field} is left to tunesmith")
    return OurNames(fields, {field: name for field, name in names.items() if field != name}, tuple(notes))


def _number(value: object) -> object:
    """A number that may come as text; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:  # it is judged, and refused, as what it is
        return value


def nearly(name: str, known: Collection[str]) -> str:
    """What is said of a name that means nothing here, or nearly the same as a field does; empty: nothing."""
    field, what = _NEARLY.get(name, ("", ""))
    return what if field in known else ""
