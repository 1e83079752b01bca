"""What a checkpoint is chosen by: rows whose values are known, where a person's ordinary answers would hide them."""

from __future__ import annotations

import pytest

from tunesmith.tools.training.rows import TokenRow

pytestmark = pytest.mark.lab


def row(name: str, values: tuple[bool, ...] = (), *, held: bool = False) -> TokenRow:
    return TokenRow([1, 2], [1, 2], rehearsal=held, row_id=name, values=values)


def chosen(rows: list[TokenRow]) -> list[str]:
    from tunesmith.tools.training.train_job import _of_each_kind

    return [one.row_id for one in _of_each_kind(rows)]


def test_free_answers_are_not_counted_beside_rows_whose_values_are_known() -> None:
    rows = [row("free"), row("a", (False, True)), row("b", (True, False)), row("held", held=True)]
    assert chosen(rows) == ["a", "b", "held"]


def test_where_most_rows_have_no_known_value_all_of_them_count() -> None:
    rows = [row("free"), row("as free", (False, False)), row("a", (True, False)), row("held", held=True)]
    assert chosen(rows) == ["free", "as free", "a", "held"]
