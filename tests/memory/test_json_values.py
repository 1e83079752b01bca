"""A value of a document is what it has to be, or an error that `int` and `**` raise too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunesmith.memory.json_values import as_float, as_int, as_list, as_object, as_record
from tunesmith.memory.records import Worker


@pytest.mark.parametrize(
    ("reads", "value", "read"),
    [
        (as_int, 3.9, 3), (as_int, "12", 12), (as_int, True, 1), (as_float, "0.5", 0.5), (as_float, 2, 2.0),
        (as_list, (1, 2), [1, 2]), (as_object, {"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_what_fits_is_read_as_python_reads_it(reads: Callable[[object], object], value: object, read: object) -> None:
    assert (reads(value), type(reads(value))) == (read, type(read))


@pytest.mark.parametrize("value", [None, b"1", object(), "x"])
@pytest.mark.parametrize("reads", [as_int, as_float, as_list, as_object])
def test_anything_else_is_refused(reads: Callable[[object], object], value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        reads(value)


def test_a_record_has_the_fields_of_its_document_and_no_others() -> None:
    assert as_record(Worker, {"pid": 1, "ticks": None}) == Worker(1, None)
    for wrong in ({"pid": 1}, {"pid": 1, "ticks": 2, "more": 3}, [1, 2]):
        with pytest.raises(TypeError):
            as_record(Worker, wrong)
