"""How much of the cores the control groups allow, on planted files of the kernel, and what that makes of a price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tests.tools.machine.test_memory_left import write
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.rates import Rates
from tunesmith.tools.core.stage import CPU, Facts
from tunesmith.tools.machine.control_groups import cores_allowed
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.pipeline import catalog, launcher


@table(
    ("line", "files", "allowed"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "200000 100000"}, 0.5),
        ("0::/\n", {"a/cpu.max": "50000 100000"}, None),
        ("3:cpu,cpuacct:/d\n0::/\n", {"cpu/d/cpu.cfs_quota_us": "25000\n", "cpu/d/cpu.cfs_period_us": "50000"}, 0.5),
        ("3:cpu:/d\n", {"cpu/d/cpu.cfs_quota_us": "-1\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpuset:/d\n", {"cpu/d/cpu.cfs_quota_us": "25000", "cpu/d/cpu.cfs_period_us": "100000"}, None),
        ("0::/a\n", {"a/cpu.max": "50000 0"}, None),
        ("0::/a\n", {"a/cpu.max": "half"}, None),
    ],
)  # fmt: skip
def test_the_tightest_share_of_time_on_the_way_to_the_root_counts(
    line: str, files: dict[str, str], allowed: float | None, tmp_path: Path
) -> None:
    write(tmp_path / "proc" / "self", cgroup=line)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cores_allowed(tmp_path / "proc", tmp_path / "groups") == allowed


def test_a_processor_of_whose_time_a_quarter_is_allowed_is_priced_at_a_quarter_of_its_rates(tmp_path: Path) -> None:
    whole = replace(measure_machine(tmp_path), cores=2, cores_allowed=None, gpus=())
    part = replace(whole, cores_allowed=0.5)
    for measured in ({CPU: Rates(8e11, 2e11, 4e10, 5e8)}, {}):
        all_of_it = Facts(tmp_path, whole, "", measured=measured).processor_rates
        found = Facts(tmp_path, part, "", measured=measured).processor_rates
        assert (found.bf16_flops, found.fp32_flops) == (all_of_it.bf16_flops / 4, all_of_it.fp32_flops / 4)
        assert (found.memory_bytes_s, found.disk_bytes_s) == (all_of_it.memory_bytes_s / 4, all_of_it.disk_bytes_s)
        assert found.measured == bool(measured)
    assert "0.5 of them allowed" in part.fingerprint, "what it took says nothing of the same one without a limit"


@table("allowed", [None, 2.0, 64.0])
def test_a_limit_that_takes_nothing_away_changes_nothing(allowed: float | None) -> None:
    machine = Machine("P", 2, 1, 1, 1, 1, cores_allowed=allowed)
    assert machine.share == 1 and machine.fingerprint == "P, 2 cores"


@pytest.mark.heavy
@table(("allowed", "threads"), [(None, None), (0.5, "1"), (1.5, "2"), (4.0, "4")])
def test_a_worker_has_no_more_threads_than_its_group_lets_compute(
    allowed: float | None, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "cores_allowed", lambda: allowed)
    assert launcher.worker_environment(catalog.BY_NAME["train"].load(), {}, ()).get("OMP_NUM_THREADS") == threads
