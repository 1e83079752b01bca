"""Who says yes: a person at a terminal, `--yes` within its hours, a hash that was approved before, or nobody.

Each is an `Approver`: called with a priced plan, it answers or raises ApprovalPending. An approver
never shows the plan; whoever emits `plan.shown` has done that.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tunesmith.agent.commands.fields import of_words
from tunesmith.memory.errors import ApprovalPending, BadInput
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Decision, Edited

GRACE_S = 0.5
"""Keys typed before a question had been on the screen for this long were meant for something else."""

_YES = frozenset(
    {
        "y",
        "yes",
        "yes please",
        "ok",
        "okay",
        "yep",
        "yeah",
        "sure",
        "go",
        "go ahead",
        "go on",
        "do it",
        "start",
        "please do",
        "yes do it",
        "yes go ahead",
    }
)
_NO = frozenset({"n", "no", "nope", "no thanks", "no thank you"})
_ALWAYS = frozenset({"always", "a", "yes always", "always yes"})


_COSTS = ("seconds", "peak_ram_bytes", "peak_vram_bytes", "disk_bytes")
ALWAYS = "always in this session, up to this price"
"""The reason in a decision that also answers for the later plans of its stage that cost no more."""


_PAIR = re.compile(r"""(?<![^\s,;])-{0,2}([^\W\d][\w-]*)\s*=+\s*("[^"]*"|'[^']*'|\[[^\]]*\]|[^\s=;]*[^\s=;,.!])""")
_REFUSING = re.compile(r"\W*(?:no|nope|not|don'?t|do not|never|stop|cancel)\b", re.IGNORECASE)
_AROUND_PAIRS = {"a", "and", "at", "but", "instead", "make", "set", "then", "to", "use", "with"}.union(
    *(answer.split() for answer in _YES | _ALWAYS)
)


def read_edit(text: str, plan: Plan) -> dict[str, object]:
    """The fields in an answer such as `lora_rank=8, epochs = 2`, a yes before them or not; empty for other answers.

    What begins with a no is no edit. Raises BadInput where something is set to a value and it is not clear what: such
    an answer is neither a yes nor a no. Whether a field and its value are right is for the plan's request to say.
    """
    if "=" not in text or _REFUSING.match(text):
        return {}
    pairs = [(name.replace("-", "_").lower(), value.strip("\"'")) for name, value in _PAIR.findall(text)]
    around = " ".join(re.split(r"[\s,;.!]+", _PAIR.sub(" ", text))).strip()
    unclear = [word for word in around.lower().split() if word not in _AROUND_PAIRS]
    if not pairs or unclear or "run" in dict(pairs):
        example = next((f"{name}={value}" for name, value in plan.request.items() if name != "run"), "field=value")
        target = "run" if "run" in dict(pairs) else around or text.strip()
        raise BadInput(f"{target!r} sets nothing in this step; write such as {example}, or yes, or why not")
    request = catalog.ENTRIES[plan.stage].load().request
    return of_words(shlex.join(f"{name}={value}" for name, value in pairs), request)


def read_answer(text: str, *, by: str) -> Decision | None:
    """The decision in what somebody typed: a clear yes, a no with its reason, or None for an empty line."""
    words = " ".join(text.replace(",", " ").split()).strip(".!").lower()
    if not words:
        return None
    if words in _YES:
        return Decision(True, by)
    if words in _ALWAYS:
        return Decision(True, by, ALWAYS)
    return Decision(False, by, "" if words in _NO else text.strip())


def question(plan: Plan) -> str:
    """What is asked, with the price in it."""
    from tunesmith.tools.core.format import duration

    return f"{plan.stage}: about {duration(plan.estimate.seconds)}. Start? (yes, why not, or field=value) "


def covered(plan: Plan, granted: Plan) -> bool:
    """Whether a plan costs no more than the granted one of any resource, and works with the same models."""
    one, other = plan.estimate, granted.estimate
    cheaper = all(getattr(one, cost) <= getattr(other, cost) for cost in _COSTS)
    return cheaper and _models(plan) == _models(granted)


def _models(plan: Plan) -> list[object]:
    named = [plan.request.get(name) for name in ("model", "revision", "quantized", "role", "judge", "writer")]
    return [*named, *((name, pin.sha256) for name, pin in sorted(plan.inputs.items()) if name in ("base", "teacher"))]


@dataclass(slots=True)
class TerminalApprover:
    """Asks the person at the terminal until something was said; keeps what was answered with `always`."""

    ask: Callable[[str], str] = input
    granted: dict[str, Plan] = field(default_factory=dict)
    """Stage → the plan up to whose price, on whose model, its plans need no further yes in this session."""

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending when the terminal is closed instead of answered, Edited for `field=value`."""
        granted = self.granted.get(plan.stage)
        if granted and covered(plan, granted):
            return Decision(True, "terminal", f"{ALWAYS} ({granted.estimate.seconds:.0f} s)")
        time.sleep(GRACE_S)
        unclear = ""
        while True:
            drop_typed_ahead()
            try:
                text = self.ask(unclear + question(plan))
            except EOFError:
                raise pending(plan, step, "the terminal was closed") from None
            try:
                edit = read_edit(text, plan)
            except BadInput as error:
                unclear = f"{error}\n"
                continue
            if edit:
                raise Edited(edit)
            answer = read_answer(text, by="terminal")
            if answer and answer.reason == ALWAYS:
                self.granted[plan.stage] = plan
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
            more = plan.estimate.promised_seconds / 3600
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
            raise pending(plan, step, f"it would now be planned as {plan.hash[:12]}, not {self.plan_hash[:12]}")
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
