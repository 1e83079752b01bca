"""A table of rows fails with every row that its property does not hold for, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.tables import table


def test_each_row_that_is_wrong_is_named_however_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    @table(("number", "how"), [(1, ""), (2, "assert"), (3, "raises"), (4, ""), (5, "error")])
    def holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, how: str) -> None:
        tried.append(tmp_path)
        assert not [*tmp_path.iterdir()] and not hasattr(pytest, "planted")
        monkeypatch.setattr(pytest, "planted", number, raising=False)
        (tmp_path / "left").touch()
        assert how != "assert"
        if how == "raises":
            with pytest.raises(ValueError):
                pass
        if how == "error":
            raise OSError

    with pytest.raises(ExceptionGroup, match="3 of 5 rows") as found:
        holds(tmp_path=tmp_path, monkeypatch=monkeypatch)
    assert [error.__notes__[0][:20] for error in found.value.exceptions] == [
        "row 1: {'number': 2,", "row 2: {'number': 3,", "row 4: {'number': 5,",
    ]  # fmt: skip
    assert len({*tried}) == 5


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(AssertionError, match="holds nothing"):
        table("row", [])
