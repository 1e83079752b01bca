"""What a question is: a request of its own kind; and what it returns: facts whose names carry their units."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import RenderableType

from tunesmith.agent.queries.table import FEW_TEXTS, moment, shown
from tunesmith.tools.core.local_paths import NO_PLACE

Arm = Literal["base", "prompted", "adapter", "merged", "quantized"]
Block = Literal["target", "general", "tools", "adversarial", "over-trigger"]

Recorded = Annotated[str, NO_PLACE]
"""A text that is looked for among the records alone. A question with a text of another kind may look at a folder or ask
the hub, so no other agent may put it."""
RunName = Annotated[
    Recorded, Field(description="Run, such as r3; empty: the one talked about, else the newest that has it")
]
StepName = Annotated[Recorded, Field(description="Step, such as s12")]
StageName = Annotated[Recorded, Field(description="Stage, such as train")]
AnyArm = Annotated[Arm | Literal[""], Field(description="Arm; empty: the last one, or all")]
AnyBlock = Annotated[Block | Literal[""], Field(description="Block of test cases; empty: all")]
MOST_SHOWN = 40  # of cases or rows on the screen at once; a page has all of them
Most = Annotated[int, Field(ge=0, le=MOST_SHOWN, description="0: a few")]
Since = Annotated[datetime | None, Field(description="From when, local time, such as 2026-11-20 or 2026-11-20T14:00")]
Until = Annotated[datetime | None, Field(description="Up to when, exclusive")]


class Query(BaseModel):
    """A typed question. Arguments that are left out mean what their description says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str = ""


# What it returns

Fact = Mapping[str, object]
"""Name → value. A name ends with its unit: `seconds`, `bytes`, `share`, `p_value`, `_at` (a Unix time); a whole number
without one is a count."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A step that a result proposes: where, and with which fields."""

    run: str
    stage: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """The facts that answer a query, the same for the screen, the driver and another agent."""

    facts: tuple[Fact, ...] = ()
    of: Fact = field(default_factory=dict)
    """What all facts are of: run, step, arm, block, suite, and the subset where they are not of the whole."""
    says: tuple[str, ...] = ()
    """Sentences that the tools phrase: a verdict, a finding, a refusal."""
    notes: tuple[str, ...] = ()
    """Sentences on what figures rest on: below them."""
    texts: tuple[Fact, ...] = ()
    """Texts of rows, cases and answers: on the screen alone. A model is told how many there are."""
    most: int = 0
    """How many of them the screen shows at first; 0: a few."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What is not among the facts, and how many of it: `{"blind cases": 10}`."""
    proposals: tuple[Proposed, ...] = ()
    page: Callable[[], RenderableType] | None = None
    """A page of more than the facts, where there is one; made only when it is asked for."""

    def as_json(self) -> dict[str, object]:
        """The result for a program: numbers as they are, times in ISO 8601. It holds no text of rows or cases."""
        return self._document(lambda name, value: value)

    def for_model(self, *, seen: bool = True) -> str:
        """The result for a driver: the same, with times, sizes and shares as the screen writes them, and whether the
        user has the texts before them."""
        plain = (bool, int, str)
        document = self._document(lambda name, value: value if isinstance(value, plain) and not _has_unit(name) else
                                  shown(name, value))  # fmt: skip
        on_screen = min(len(self.texts), self.most or FEW_TEXTS) if seen else 0
        texts = {"on_the_screen_alone": on_screen, "texts_not_shown_yet": len(self.texts) - on_screen}
        document = {name: one for name, one in document.items() if name not in texts}
        document |= {name: number for name, number in texts.items() if number}
        return json.dumps(document, ensure_ascii=False, default=str)

    def _document(self, written: Callable[[str, object], object]) -> dict[str, object]:
        def flat(fact: Fact) -> dict[str, object]:
            known = {name: moment(name, value) for name, value in fact.items() if value not in (None, "", (), [], {})}
            return {name: written(name, value) for name, value in known.items()}

        proposed = [{"run": one.run, "stage": one.stage, "fields": dict(one.fields)} for one in self.proposals]
        document = {
            "of": flat(self.of),
            "facts": [flat(fact) for fact in self.facts],
            "says": [*self.says, *self.notes],
            "on_the_screen_alone": len(self.texts),
            "left_out": dict(self.left_out),
            "proposed": proposed,
        }
        return {name: value for name, value in document.items() if value}


def _has_unit(name: str) -> bool:
    return name.endswith(("seconds", "bytes", "share"))
