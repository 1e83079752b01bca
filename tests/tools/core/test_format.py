"""Numbers as people read them."""

from __future__ import annotations

from tests.fixtures.tables import table
from tunesmith.tools.core import format


@table(
    ("said", "meant"),
    [
        (format.percent(0.9996), "99.9 %"),
        (format.percent(1.0), "100 %"),
        (format.percent(0.0004), "0.1 %"),
        (format.percent(None), "–"),
        (format.duration(None), "–"),
        (format.duration(0.42), "0.4 s"),
        (format.duration(42), "42 s"),
        (format.duration(59.7), "1 min 00 s"),
        (format.duration(185), "3 min 05 s"),
        (format.duration(7800), "2 h 10 min"),
        (format.duration(3600), "1 h 00 min"),
        (format.duration(9.96), "10 s"),
        (format.between(16.2, 28), "16 to 28 s"),
        (format.between(50, 125), "50 s to 2 min"),
        (format.between(240, 960), "4 to 16 min"),
        (format.between(3000, 12_600), "50 min to 3.5 h"),
        (format.size(269 << 20), "269 MiB"),
        (format.p_value(0.0004), "p < 0.001"),
        (format.p_value(0.0312), "p = 0.031"),
        (format.ratio(5, 0), ""),
        (format.listed(["a", "b", "c"]), "a, b and c"),
        (format.listed([]), ""),
    ],
)
def test_numbers_are_never_rounded_into_another_claim(said: str, meant: str) -> None:
    assert said == meant
