"""Who says yes: a person at a terminal, `--yes` within its hours, a hash that was approved before, or nobody.

Each is an `Approver` of `tools.arc`: called with a priced plan, it answers or raises ApprovalPending. An approver
never shows the plan; whoever emits `plan.shown` has done that.
"""

from __future__ import annotations

import contextlib
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tunesmith.memory.errors import ApprovalPending
from tunesmith.tools.arc import Decision
from tunesmith.tools.stage import Plan

GRACE_S = 0.5
"""Keys typed before a question had been on the screen for this long were meant for something else."""

_YES = frozenset({"y", "yes", "yes please", "ok", "okay"})
_NO = frozenset({"n", "no"})


def read_answer(text: str, *, by: str) -> Decision | None:
    """The decision in what somebody typed: a clear yes, a no with its reason, or None for an empty line."""
    words = " ".join(text.replace(",", " ").split()).strip(".!").lower()
    if not words:
        return None
    if words in _YES:
        return Decision(True, by)
    return Decision(False, by, "" if words in _NO else text.strip())


def question(plan: Plan) -> str:
    """What is asked, with the price in it."""
    from tunesmith.agent.render import duration

    return f"{plan.stage}: about {duration(plan.estimate.seconds)}. Start? (yes, or why not) "


@dataclass(slots=True)
class TerminalApprover:
    """Asks the person at the terminal until something was said."""

    ask: Callable[[str], str] = input

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending when the terminal is closed instead of answered."""
        time.sleep(GRACE_S)
        while True:
            drop_typed_ahead()
            try:
                answer = read_answer(self.ask(question(plan)), by="terminal")
            except EOFError:
                raise pending(plan, step, "the terminal was closed") from None
            if answer:
                return answer


@dataclass(slots=True)
class YesApprover:
    """`--yes`: agrees to everything that fits into `max_hours`, counted from when this was made."""

    max_hours: float | None = None
    _started: float = field(default_factory=time.monotonic)

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending where the step would go over the hours."""
        if self.max_hours is not None:
            spent = (time.monotonic() - self._started) / 3600
            more = plan.estimate.seconds / 3600
            if spent + more > self.max_hours:
                raise pending(
                    plan,
                    step,
                    f"{spent:.2f} h are spent and it is estimated at {more:.2f} h more, "
                    f"over --max-hours {self.max_hours:g}",
                )
        return Decision(True, "--yes")


@dataclass(slots=True)
class HashApprover:
    """`--approve HASH`: agrees to exactly the plan that was shown before."""

    plan_hash: str

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending for any other plan."""
        if not plan.hash.startswith(self.plan_hash):
            raise pending(plan, step, f"its plan is not {self.plan_hash[:12]}")
        return Decision(True, "--approve")


def nobody(plan: Plan, step: str) -> Decision:
    """Raises ApprovalPending: there is no terminal and no `--yes`."""
    raise pending(plan, step, "there is no terminal to ask on and no --yes")


def pending(plan: Plan, step: str, why: str) -> ApprovalPending:
    """The error of a plan that nobody has decided on, with what to do next."""
    return ApprovalPending(
        f"{plan.stage} ({step}) waits for a yes to plan {plan.hash[:12]}: {why}; "
        f"approve it with `tunesmith {plan.stage} --approve {plan.hash[:12]}`, or give --yes"
    )


def drop_typed_ahead() -> None:
    """Forget keys that were typed before the question was there."""
    with contextlib.suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
