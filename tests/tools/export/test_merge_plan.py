"""What the plan of a merge says beside its price."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.tiny_model import CONFIG
from tunesmith.tools.export.merge import ONTO_16_BITS
from tunesmith.tools.pipeline.run_step import quote
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


@pytest.mark.parametrize("load_in_4bit", [True, False])
def test_an_adapter_of_a_4_bit_base_is_merged_onto_16_bits_and_the_plan_says_why(
    tmp_path: Path, load_in_4bit: bool
) -> None:
    build = stored_runs.new_builder(tmp_path)
    step = build.step("base")
    base = build.artifact(step, "base", "", parameters=32, config=CONFIG)
    build.end(step, 1.0, 1)
    step = build.step("train", request={"load_in_4bit": load_in_4bit})
    build.artifact(step, "adapter", "", base, lora_rank=16)
    build.end(step, 1.0, 1)
    notes = quote(Workspace(build.store, None, lambda event, **data: None), StepRequest("merge", {}, "r1")).notes
    assert (ONTO_16_BITS in notes) == load_in_4bit
    assert "16-bit base" in ONTO_16_BITS and "dequantized" in ONTO_16_BITS
