"""Names of other programs: taken where they mean the same, explained where they nearly do, refused for two values."""

from __future__ import annotations

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core import field_names
from tunesmith.tools.core.field_names import others, our_names, ours
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import parse_fields

KNOWN = {entry.name: entry.load().request.model_fields for entry in catalog.STAGES}


@table(
    ("stage", "given", "ours_"),
    [
        ("train", {"lora_r": 8, "num_train_epochs": 2}, {"lora_rank": 8, "epochs": 2.0}),
        ("train", {"r": 8, "num-epochs": 3, "max_length": 64}, {"lora_rank": 8, "epochs": 3, "max_seq_len_tokens": 64}),
        ("train", {"cutoff_len": 256}, {"max_seq_len_tokens": 256}),
        ("train", {"gradient_checkpointing": True}, {"activation_checkpointing": "on"}),
        ("train", {"per_device_train_batch_size": 2, "lr": 1e-4}, {"micro_batch": 2, "learning_rate": 1e-4}),
        ("preflight", {"sequence_len": 128, "micro_batch_size": 1}, {"max_seq_len_tokens": 128, "micro_batch": 1}),
        ("baseline", {"max_model_len": 4096, "max_new_tokens": 32}, {"context_tokens": 4096, "max_tokens": 32}),
        ("base", {"model_name_or_path": "bundled"}, {"model": "bundled"}),
        ("quantize", {"num_calibration_samples": 32}, {"calibration_samples": 32}),
    ],
)  # fmt: skip
def test_a_name_of_another_program_is_the_field_it_means(
    stage: str, given: dict[str, object], ours_: dict[str, object]
) -> None:
    assert parse_fields(stage, given) == ours_


def test_every_name_stands_for_one_field_that_some_stage_has() -> None:
    fields = {name for known in KNOWN.values() for name in known}
    table = field_names._ALSO_CALLED
    names = [other for others_ in table.values() for other in others_]
    assert len(names) == len(set(names)) and set(table) <= fields
    for known in KNOWN.values():
        assert not others(known).keys() & set(known), "a field's own name goes before"
        assert all(ours(name, known) == name for name in known)
    assert {field for field, _ in field_names._NEARLY.values()} <= fields


@table(
    ("given", "said"),
    [({"learning_rate": "0"}, 1), ({"epochs": 0.0}, 1), ({"lr": 0}, 2), ({"rehearsal_weight": "-1"}, 1),
     ({"rehearsal_weight": 0}, 0), ({"patience": 0}, 0), ({"epochs": "auto"}, 0), ({"epochs": None}, 0), ({"r": 8}, 1)],
)  # fmt: skip
def test_a_number_that_is_read_as_auto_is_said(given: dict[str, object], said: int) -> None:
    assert len(our_names(given, KNOWN["train"]).notes) == said


def test_two_names_of_one_field_are_refused_by_both_where_they_differ() -> None:
    with pytest.raises(BadInput, match="lora_r is 8 and --lora-rank is 16, and both set lora_rank"):
        our_names({"lora_r": 8, "lora_rank": 16}, KNOWN["train"], {"lora_rank": "--lora-rank"})
    assert our_names({"lora_r": "8", "lora_rank": 8}, KNOWN["train"]).fields == {"lora_rank": 8}


@table(
    ("stage", "given", "told"),
    [
        ("train", {"gradient_accumulation_steps": 4}, "batch_size is all rows of an optimiser step"),
        ("train", {"warmup_steps": 10}, "warmup_ratio is a share"),
        ("baseline", {"limit": 10}, "cases_per_block"),
        ("train", {"num_train_epoch": 1}, "did you mean 'epochs'"),
        ("train", {"epoch": 1}, "did you mean 'epochs'"),
        ("train", {"rank": 8}, "did you mean 'lora_rank'"),
        ("train", {"lora_r": "8x"}, "lora_r is '8x'; it takes a whole number of at least 1 and at most 256"),
        ("deploy", {"gradient_accumulation_steps": 4}, "unknown field"),
        ("deploy", {"on": "ray"}, "deploy: no field 'on' here: it works on files or a port of this machine"),
    ],
)  # fmt: skip
def test_what_means_nearly_the_same_is_not_taken_but_explained(stage: str, given: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse_fields(stage, given)
