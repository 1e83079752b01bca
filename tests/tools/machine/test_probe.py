"""What a device was measured to do is kept by device and version, and a bad file is no measurement."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.core.rates import Rates
from tunesmith.tools.machine import probe
from tunesmith.tools.machine.probe import keep_rates, measured_rates
from tunesmith.tools.machine.probe_job import measure_rates

ONE, OTHER = Rates(1e12, 2e11, 3e10, 4e8), Rates(9e13, 2e13, 9e11, 1e9)


def test_rates_are_kept_by_device_and_by_the_version_that_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured_rates(tmp_path) == {}
    keep_rates(tmp_path, "CPU", ONE)
    keep_rates(tmp_path, "Card 0", OTHER)
    assert measured_rates(tmp_path) == {"CPU": ONE, "Card 0": OTHER} and ONE.measured
    monkeypatch.setattr(probe, "version", lambda name: "99.0")
    assert measured_rates(tmp_path) == {}, "another torch computes otherwise"
    keep_rates(tmp_path, "CPU", OTHER)
    monkeypatch.undo()
    assert measured_rates(tmp_path)["CPU"] == ONE


@table("text", ["", "{", "[]", '{"CPU | torch 2": {"bf16_flops": "fast"}}'])
def test_a_file_that_says_nothing_is_no_measurement(tmp_path: Path, text: str) -> None:
    (tmp_path / "rates.json").write_text(text)
    assert measured_rates(tmp_path) == {}
    keep_rates(tmp_path, "CPU", ONE)
    assert measured_rates(tmp_path) == {"CPU": ONE}


@pytest.mark.lab
def test_every_rate_of_a_device_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    rates = measure_rates(tmp_path)
    assert rates.measured and not list(tmp_path.iterdir())
    for rate in (rates.fp32_flops, rates.bf16_flops, rates.memory_bytes_s, rates.disk_bytes_s):
        assert 0 < rate < math.inf
