"""A log that a kill cut off anywhere loses at most the entry that was being written."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.tables import table
from tunesmith.tools.core.resumable_log import ResumableLog, read_log

ENTRIES = [{"id": "a", "text": "ünï\u2028 two"}, {"id": "b", "n": 12}, {"id": "c", "text": ""}]


def test_what_was_added_is_read_in_its_order_and_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    with ResumableLog(path) as log:
        for n, entry in enumerate(ENTRIES, 1):
            log.add(entry)
            assert read_log(path) == ENTRIES[:n]


@table("lost", range(1, 60))
def test_cut_off_anywhere_it_keeps_what_was_whole_and_goes_on(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with ResumableLog(path) as log:
        for entry in ENTRIES:
            log.add(entry)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    kept = read_log(path)
    assert kept == ENTRIES[: len(kept)] and len(kept) >= whole[:-lost].count(b"\n")
    with ResumableLog(path) as log:
        log.add({"id": "new"})
    assert read_log(path) == [*kept, {"id": "new"}]
