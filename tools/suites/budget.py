"""How much text one suite may read and make: templates multiply, and every case is hashed, stored and sent whole."""

from __future__ import annotations

MAX_SUITE_CHARS = 100_000_000
"""Files read and cases made, together: a thousand cases of 25,000 tokens each."""


class BudgetSpent(ValueError):
    """The suite reads and makes more text than a suite may."""


class TextBudget:
    """Characters that are left of a suite's budget."""

    def __init__(self, chars: int = MAX_SUITE_CHARS) -> None:
        self._all = self._left = chars
        self._sizes: dict[int, int] = {}  # id of a list or dict of the suite's own files, which outlive this → size

    def take(self, chars: int) -> None:
        """Count what was read or made. Raises BudgetSpent."""
        self._left -= chars
        if self._left < 0:
            raise BudgetSpent(
                f"the suite comes to over {self._all} characters with its templates filled in and its files read; "
                "use shorter vars, fewer cases, or several suites"
            )

    def take_value(self, value: object) -> None:
        """Count plain data that a case holds as the suite wrote it. Raises BudgetSpent."""
        self.take(self._size(value))

    def _size(self, value: object) -> int:
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._sizes:
            items = (*value, *value.values()) if isinstance(value, dict) else value
            self._sizes[id(value)] = 1 + sum(map(self._size, items))
        return self._sizes[id(value)]
