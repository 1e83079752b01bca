"""What a control group's limit leaves, and how long everything waits for memory; on planted files of the kernel."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tunesmith.tools.machine import measure
from tunesmith.tools.machine.memory_left import group_left_bytes, group_limit_bytes, memory_left_bytes, stalled_percent

FREE = 10_000


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def left(at: Path, line: str) -> int:
    write(at / "proc" / "self", cgroup=line)
    return group_left_bytes(default=FREE, proc=at / "proc", groups=at / "groups")


def test_the_tightest_limit_on_the_way_to_the_root_counts_and_cached_files_do_not(tmp_path: Path) -> None:
    stat = "anon 500\ninactive_file 200\nactive_file 100\n"
    write(tmp_path / "groups/app", memory__max="5000", memory__current="1000", memory__stat=stat)
    write(tmp_path / "groups/app/job", memory__max="max", memory__current="900", memory__stat=stat)
    assert left(tmp_path, "0::/app/job\n") == 5000 - 1000 + 300
    write(tmp_path / "groups/app/job", memory__max="1000")
    assert left(tmp_path, "0::/app/job\n") == 1000 - 900 + 300
    assert group_limit_bytes(default=FREE, proc=tmp_path / "proc", groups=tmp_path / "groups") == 1000
    assert left(tmp_path, "0::/\n") == FREE
    write(tmp_path / "groups/app/job", memory__max="500")
    assert left(tmp_path, "0::/app/job\n") == 0


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    files = {"memory__limit_in_bytes": "3000", "memory__usage_in_bytes": "1500"}
    write(tmp_path / "groups/memory/app", **files, memory__stat="total_inactive_file 100\ntotal_active_file 0\n")
    assert left(tmp_path, "7:cpu:/other\n4:memory:/app\n0::/\n") == 1600
    assert left(tmp_path, "7:cpu:/other\n") == FREE


def test_without_control_groups_the_machine_has_what_it_has(tmp_path: Path) -> None:
    for measured in (group_left_bytes, group_limit_bytes):
        assert measured(default=FREE, proc=tmp_path, groups=tmp_path) == FREE
    assert 0 < memory_left_bytes() <= psutil.virtual_memory().total + psutil.swap_memory().total


def test_what_is_measured_as_free_is_what_the_group_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "group_left_bytes", lambda *, default: min(default, 123))
    monkeypatch.setattr(measure, "group_limit_bytes", lambda *, default: min(default, 456))
    measured = measure.measure_machine(tmp_path)
    assert (measured.ram_free_bytes, measured.ram_total_bytes) == (123, 456)


def test_how_long_everything_waits_for_memory_is_the_kernels_own_number(tmp_path: Path) -> None:
    assert stalled_percent(tmp_path) == 0.0
    text = "some avg10=61.20 avg60=9.00 avg300=1.00 total=5\nfull avg10=57.31 avg60=8.00 avg300=1.00 total=4\n"
    write(tmp_path / "pressure", memory=text)
    assert stalled_percent(tmp_path) == 57.31
