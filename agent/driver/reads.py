"""What the driver looks at in a turn: a dim line each, a table where one is wanted, and all of it behind `/why`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.agent.commands import theme
from tunesmith.agent.queries.facts import Query, Result
from tunesmith.agent.queries.table import FEW_TEXTS, shown, text_of, view
from tunesmith.tools.core.format import one_line

_NOUNS = {
    "compare": "comparison", "compare_runs": "comparison", "described": "description", "confusion": "mix-ups",
    "served": "deployments", "fits": "models that fit", "across": "figures of every run", "trial": "finished model",
}  # fmt: skip
"""Kind of query → what it looks at, where its name is no noun."""
MOST_LINES = 32
"""Of tables in a turn: a screen. What is beyond is a page."""
_ABOUT = 80
"""Characters of what was looked up: a line."""
Show = Callable[[RenderableType], None]


@dataclass(slots=True)
class Reads:
    """The results of one turn, in the order in which they were read."""

    results: list[tuple[str, Result]] = field(default_factory=list)
    lines: int = 0
    """How many lines of tables are on the screen."""

    def looked(self, query: Query, result: Result, show: Show, *, table: bool) -> bool:
        """Say in a dim line what was looked at; with `table`, or where it holds a few texts for the screen alone, show
        it. Whether it is shown."""
        what = looking(query)
        self.results.append((what, result))
        show(Text(f"· {what}", style=theme.LABEL))
        if not table and not 0 < len(result.texts) <= FEW_TEXTS:
            return False
        lines = len(text_of(result))
        fits = self.lines + lines <= MOST_LINES
        if fits:
            self.lines += lines
            show(view(result))
        else:
            show(Text(f"  {lines} more lines: /why shows them", style=theme.LABEL))
        return fits

    def manual(self, about: str, sections: Mapping[str, str], show: Show) -> None:
        """Say what was looked up in the manual, and keep it."""
        what = f"reads the manual on {one_line(about)[:_ABOUT]}"
        self.results.append((what, Result(says=tuple(sections.values()))))
        show(Text(f"· {what}", style=theme.LABEL))

    def page(self) -> RenderableType:
        """Everything that was read, each under what it is."""
        parts: list[RenderableType] = []
        for what, result in self.results:
            parts += [Text(f"· {what}", style=theme.LABEL), view(result, whole=True)]
        return Group(*parts)


def looking(query: Query) -> str:
    """What a query looks at, such as `reads the failed adapter cases of r1`."""
    given = {name: value for name, value in query.model_dump(exclude_defaults=True).items() if name != "kind"}
    runs = [run for run in (given.pop("run", ""), given.pop("other_run", "")) if run]
    words = [_said(name, value) for name, value in given.items()]
    noun = _NOUNS.get(query.kind, query.kind.replace("_", " "))
    return " ".join(["reads the", *words, noun, *([f"of {' and '.join(runs)}"] if runs else [])])


def _said(name: str, value: object) -> str:
    return f"{name} {value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else shown(name, value)
