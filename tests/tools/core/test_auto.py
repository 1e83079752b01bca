"""What may be left to the plan reads `auto`, and 0 of an older version's number means the same."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.fixtures.tables import table
from tunesmith.tools.core.auto import is_auto, is_open, is_switch, readable_default, readable_value
from tunesmith.tools.evaluation.baseline import BaselineRequest
from tunesmith.tools.export.deploy import DeployRequest
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.training.preflight import PreflightRequest
from tunesmith.tools.training.train import TrainRequest

WEIGHTS = {"rehearsal_weight", "value_weight", "max_kl"}
"""Where 0 is a choice of its own: none of it."""
SWITCHES = {"load_in_4bit"}
"""On, off or open."""
_ROWS = ("batch_size", "micro_batch", "cards", "max_seq_len_tokens")
OPEN: list[tuple[type[Any], set[str]]] = [
    (TrainRequest, {"lora_rank", "lora_alpha", "learning_rate", "epochs", "forms", "max_steps", "save_steps", *_ROWS}),
    (PreflightRequest, {"lora_rank", *_ROWS}),
    (BaselineRequest, {"context_tokens", "cards"}),
    (QuantizeRequest, {"group_size", "calibration_tokens", "calibration_samples"}),
    (DeployRequest, {"port", "cards"}),
]  # fmt: skip


@table(("request_", "names"), OPEN)
def test_what_is_left_to_the_model_is_auto_in_every_form(request_: type[Any], names: set[str]) -> None:
    assert {name for name, info in request_.model_fields.items() if is_auto(info)} - WEIGHTS - SWITCHES == names
    for value in ("auto", "AUTO", 0, "0"):
        read = request_.model_validate(dict.fromkeys(names, value))
        assert {getattr(read, name) for name in names} == {0}, "code computes with numbers"
        assert read == request_.model_validate({})
        assert {read.model_dump(mode="json")[name] for name in names} == {"auto"}
    for name in names:
        assert readable_default(request_.model_fields[name]) == "auto"
        assert request_.model_validate({name: "16" if name != "learning_rate" else "0.1"}).model_dump(mode="json")[name]


def test_no_other_number_is_0_for_a_choice_of_the_models() -> None:
    """Where 0 means nothing but itself, `auto` is refused: no field says `0: by …` any more."""
    for entry in catalog.STAGES:
        for name, info in entry.load().request.model_fields.items():
            assert "0: by" not in (info.description or "") and "0: as" not in (info.description or ""), name
            assert readable_value(info, 0) == ("auto" if is_auto(info) and name not in WEIGHTS | SWITCHES else 0)
    with pytest.raises(ValidationError):
        BaselineRequest.model_validate({"cases_per_block": "auto"})


@table(
    ("given", "value", "written"),
    [("auto", None, "auto"), (" Auto", None, "auto"), (None, None, "auto"), (True, True, True), ("true", True, True),
     (False, False, False), ("false", False, False), (0, False, False)],
)  # fmt: skip
@pytest.mark.parametrize("request_", [TrainRequest, PreflightRequest])
def test_a_switch_is_on_off_or_auto(request_: type[Any], given: object, value: bool | None, written: object) -> None:
    info, read = request_.model_fields["load_in_4bit"], request_.model_validate({"load_in_4bit": given})
    assert read.load_in_4bit is value and read.model_dump(mode="json")["load_in_4bit"] == written
    assert request_.model_validate(read.model_dump(mode="json")) == read, "as it is stored, so it is read"
    assert readable_value(info, value) == written and is_open(info, value) == (value is None)
    assert readable_default(info) == "auto" and is_switch(info)


def test_words_of_other_programs_for_a_value_are_taken() -> None:
    for given, value in ((True, "on"), ("true", "on"), (False, "off"), ("on", "on"), ("auto", "auto")):
        assert TrainRequest.model_validate({"activation_checkpointing": given}).activation_checkpointing == value
    assert TrainRequest.model_validate({"precision": "bfloat16"}).precision == "bf16"
    with pytest.raises(ValidationError):
        TrainRequest.model_validate({"activation_checkpointing": "unsloth"})
