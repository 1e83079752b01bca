"""What `tunesmith mcp` asks of the person, in forms that the client shows: leave to look, and the yes to a price."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from mcp.server.mcpserver import Context, Elicit
from pydantic import BaseModel, Field
from rich.console import Console

from tunesmith.agent.commands.places import is_known
from tunesmith.agent.commands.price import price_lines
from tunesmith.memory.errors import ApprovalPending, BadInput
from tunesmith.memory.records import Step
from tunesmith.tools.core.format import one_line
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Decision

_COLUMNS = 88
"""Of a text that another program's window shows."""
_MOST_NAMED = 2_000
"""Characters of names in one question: a person reads all that is allowed."""


class Agreed(BaseModel):
    """What the person is asked for below a price."""

    start: bool = Field(title="Start?", description="yes starts exactly this step")
    reason: str = Field(default="", title="Why not?", description="is recorded with a no")


class Unasked(Agreed):
    """No answer: the client cannot show a form."""

    start: bool = False


class Allowed(BaseModel):
    """What the person is asked for below a question."""

    allow: bool = Field(title="Allow it?")


class NotNeeded(Allowed):
    """No answer: our own tables know every name."""

    allow: bool = True


@dataclass(frozen=True)
class Shown:
    """What a person is shown; it agrees to that one plan. Raises ApprovalPending for any other."""

    step: Step
    plan: Plan

    def __call__(self, plan: Plan, step: str) -> Decision:
        if plan.hash != self.plan.hash:
            raise ApprovalPending(f"{plan.stage} ({step}) would now be planned as {plan.hash}; `start` that one")
        return Decision(True, "mcp")


def leave_to_look(names: Sequence[str], ctx: Context) -> Elicit[Allowed] | Allowed:
    """A question where files may be read or the hub asked for a name; of names that all are known here none."""
    if all(map(is_known, names)):
        return NotNeeded()
    if (length := sum(map(len, names))) > _MOST_NAMED:
        raise BadInput(f"the names come to {length:,} characters, {_MOST_NAMED:,} can be asked about; name fewer")
    if not can_ask(ctx):
        return Allowed(allow=False)
    named = ", ".join(f"“{one_line(name)}”" for name in names)
    return Elicit(f"May tunesmith look at {named}, here or on the hub?", Allowed)


def price_to_agree_to(shown: Shown, ctx: Context) -> Elicit[Agreed] | Agreed:
    """A price with what was chosen. Step and whole hash stand in it: an answer counts for the very form it was given
    to."""
    if not can_ask(ctx):
        return Unasked()
    plan = shown.plan
    declared = catalog.ENTRIES[plan.stage].load().request.model_fields
    chosen = {
        name: value
        for name, value in plan.request.items()
        if name != "run" and value not in (None, "", [], {}) and value != declared[name].default
    }
    console = Console(file=io.StringIO(), width=_COLUMNS, color_system=None)
    console.print(price_lines(plan, shown.step.id))
    assert isinstance(console.file, io.StringIO)
    lines = [f"  {name:<12} {one_line(str(value))}" for name, value in {"plan": plan.hash, **chosen}.items()]
    return Elicit("\n".join([console.file.getvalue().rstrip(), *lines]), Agreed)


def can_ask(ctx: Context) -> bool:
    """Whether the client can put a question to its person."""
    asks = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    return asks is not None and (asks.form is not None or asks.url is None)  # one that shows pages alone has no form
