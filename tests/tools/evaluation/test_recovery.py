"""Where quantizing lost quality, the next setting: each once, in order, with a reason that holds a figure."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.evaluation.recovery import next_setting
from tunesmith.tools.models.families import find_known
from tunesmith.tools.models.memory_math import group_size_for

ASKED: dict[str, Any] = {
    "scheme": "W4A16", "group_size": 0, "calibration_samples": 64, "max_seq_len_tokens": 256, "keep": [],
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    model = find_known(name)
    assert model
    return dict(model.config)


@table("name", ["smollm2 135m", "qwen2.5 1.5b", "llama 3.1 8b", "qwen3 30b a3b"])
def test_from_setting_to_setting_it_ends_at_8_bits_with_more_and_more_kept(name: str) -> None:
    asked, config, way = dict(ASKED), config_of(name), []
    while (setting := next_setting(asked, config)) is not None:
        assert re.search(r"\d", setting.why), setting
        assert any(asked.get(field) != value for field, value in setting.fields.items())
        asked |= setting.fields
        way.append(tuple(setting.fields))
        assert len(way) < 8
    mixture = "num_experts" in config
    assert way[way.index(("keep",)) :] == [
        ("keep",),
        ("scheme", "group_size", "keep"),
        *([] if mixture else [("keep",)]),
    ]
    assert asked["scheme"] == "W8A8" and asked["keep"] == (["o_proj"] if mixture else ["down_proj", "o_proj"])
    assert ("group_size",) in way
    assert asked.get("calibration_tokens", 64 * 256) >= 4 * config["hidden_size"]


@table("scheme", ["W4A16", "W8A16", "W8A8"])
def test_weights_that_were_rounded_one_by_one_get_gptq_before_anything_else(scheme: str) -> None:
    """More rows would change nothing for them."""
    asked = ASKED | {"scheme": scheme, "rounding": "nearest"}
    setting = next_setting(asked, config_of("llama 3.1 8b"))
    assert setting and setting.fields == {"rounding": "gptq"}
    after = next_setting(asked | setting.fields, config_of("llama 3.1 8b"))
    assert after and "rounding" not in after.fields


def test_of_a_format_of_an_earlier_version_nothing_is_proposed() -> None:
    assert next_setting(ASKED | {"scheme": "NVFP4A16", "rounding": "nearest"}, config_of("llama 3.1 8b")) is None


def test_a_wide_layer_first_gets_rows_for_its_hessian() -> None:
    setting = next_setting(ASKED, config_of("llama 3.1 8b"))
    assert setting and setting.fields == {"calibration_tokens": 4 * 14_336, "calibration_samples": "auto"}
    by_itself = ASKED | {"calibration_tokens": 4 * 14_336, "calibration_samples": "auto"}
    after = next_setting(by_itself, config_of("llama 3.1 8b"))
    assert after and "calibration_tokens" not in after.fields, "as many as a plan takes by itself"
    assert "16,384 calibration tokens met the 14,336 inputs" in setting.why


def test_a_group_size_that_does_not_divide_is_not_proposed() -> None:
    odd = config_of("smollm2 135m") | {"intermediate_size": 1530}
    assert group_size_for(odd, 32) == 0
    setting = next_setting(ASKED, odd)
    assert setting and "group_size" not in setting.fields


def test_a_dense_model_gets_autoround_before_a_byte_is_added_and_gptq_again_at_8_bits() -> None:
    asked, config, way = ASKED | {"rounding": "gptq"}, config_of("qwen2.5 1.5b"), []
    while (setting := next_setting(asked, config)) is not None:
        assert re.search(r"\d", setting.why), setting
        asked |= setting.fields
        way.append(dict(setting.fields))
    at = way.index({"rounding": "autoround"})
    assert at < next(n for n, fields in enumerate(way) if "group_size" in fields)
    eight = next(fields for fields in way if fields.get("scheme") == "W8A8")
    assert eight["rounding"] == "gptq" and asked["rounding"] == "gptq"


@pytest.mark.parametrize(("name", "more"), [("qwen3 30b a3b", {}), ("qwen2.5 1.5b", {"dtype": "float16"})])
def test_autoround_is_not_proposed_where_it_is_refused(name: str, more: dict[str, Any]) -> None:
    asked, config = ASKED | {"rounding": "gptq"}, config_of(name) | more
    while (setting := next_setting(asked, config)) is not None:
        assert "rounding" not in setting.fields
        asked |= setting.fields
