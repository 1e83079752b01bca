"""What goes where: JSON on stdout when it was asked for, and whatever people read on stderr.

Without `--json` the result of a command goes to stdout and its progress to stderr. A `stream` command (`run`,
`demo`, `-p`) prints its events one a line as they happen; any other one prints one document at its end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Unpack

from rich.console import Console, RenderableType

from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.price import price_lines
from tunesmith.agent.commands.progress_bar import Bar
from tunesmith.agent.commands.render import took_line
from tunesmith.agent.commands.terminal import SafeConsole, json_text
from tunesmith.tools.core.format import size
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import EventData


@dataclass(slots=True)
class Output:
    """Where a command tells what it does and what came of it."""

    as_json: bool = False
    stream: bool = False
    console: Console = field(default_factory=lambda: SafeConsole(stderr=True, highlight=False))
    page: Callable[[RenderableType], None] | None = None
    """Shows documents where a prompt is; else they are printed."""
    pending: dict[str, object] = field(default_factory=dict)
    """The last question that was asked, for the document of a command that ends with exit code 3."""
    step: str = ""
    """The step that was started last."""
    ended: bool = False
    """Whether `done` was told, the last event of a stream."""
    asked: set[str] = field(default_factory=set)
    """Steps that wait, or waited, for a yes: what they do is shown."""
    asks_a_person: bool = False
    """Whether somebody at the terminal decides; who gives `--approve` needs a plan's hash."""
    _bar: Bar | None = None
    _estimated_s: float = 0.0

    def emit(self, event: str, /, **data: Unpack[EventData]) -> None:
        """Take one event of a step or a plan: a line of JSON, and something to look at on stderr."""
        if event == "step.started":
            self.step = data["step"]
        elif event == "plan.shown":
            self.pending |= {"plan": data["plan"]}
        elif event == "approval.required":
            self.pending |= {"event": event, **data}
        elif event == "approval.decided":
            self.pending.clear()  # it waits no more
        if self.stream and self.as_json:
            self._line({"event": event, **data, "at": time.time()})
        self._show(event, data)

    def done(self, exit_code: int, document: Mapping[str, object]) -> None:
        """The last event of a stream: what came of it all."""
        self.ended = True
        if self.stream and self.as_json:
            self._line({"event": "done", "exit_code": exit_code, **document, "at": time.time()})

    @property
    def wants_json(self) -> bool:
        """Whether the result of a command is told as JSON, and nothing of it is shown."""
        return self.as_json and not self.stream

    def document(self, value: object, view: RenderableType) -> None:
        """The result of a command: `value` as JSON, or `view` for people."""
        if self.wants_json:
            self._line(value)
        elif self.as_json:
            self.console.print(view)
        elif self.page:
            self.page(view)
        else:
            SafeConsole(highlight=False).print(view)

    def say(self, text: str) -> None:
        """A remark on stderr."""
        self.console.print(prose(f"tunesmith: {text}", hang=2))

    def failed(self, message: str, exit_code: int) -> None:
        """The JSON of an error; the line on stderr is the command line's own."""
        self.let_go()
        if not self.as_json:
            return
        # 3: a yes is missing; whoever reads the JSON needs the plan and its hash to give it.
        if exit_code == 3 and not self.stream and self.pending:
            self._line({**self.pending, "message": message, "exit_code": exit_code})
        else:
            self._line({"event": "error", "message": message, "exit_code": exit_code})

    def end(self, exit_code: int) -> None:
        """The last event of a stream that broke off before its own."""
        if self.stream and not self.ended:
            self.done(exit_code, {"status": "failed"})

    def show_progress(self, event: str, /, **data: Unpack[EventData]) -> None:
        """Of the events of a step only how far it has come: whoever follows it tells its end."""
        if event == "step.progress":
            self.asked.add(data["step"])
            self._show(event, data)

    def let_go(self) -> None:
        """Take the bar away; the step goes on or has ended."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _line(self, value: object) -> None:
        sys.stdout.write(json_text(value, default=_plain) + "\n")
        sys.stdout.flush()  # who reads the pipe acts on events as they happen

    def _show(self, event: str, data: EventData) -> None:
        stage = data.get("stage", "")
        plan = data.get("plan")
        if isinstance(plan, Plan) and ((entry := catalog.ENTRIES.get(plan.stage)) is None or entry.asks(plan.request)):
            self.asked.add(data.get("step", ""))
        expensive = data.get("step", "") in self.asked
        if event == "run.started":
            again = "goes on" if data["resumed"] else "begins"
            self.say(f"run {data['run']} ({data['name']}) {again}: {', '.join(map(str, data['steps']))}")
        elif event == "plan.shown" and expensive and isinstance(plan, Plan):
            step, resumed = data.get("step", ""), bool(data.get("resumed"))
            self.console.print(price_lines(plan, step, resumed=resumed, with_hash=not self.asks_a_person))
            self._estimated_s = plan.estimate.seconds
        elif event == "driver.gave_way" or (event == "message" and stage):
            self.say(data["text"])
        elif event == "step.started" and expensive:
            self._bar = Bar(self.console, f"{stage} {data['step']}", self._estimated_s)
        elif event == "step.progress" and expensive:
            if self._bar is None:  # it was started before anybody looked
                title = f"{stage} {data['step']}"
                self._bar = Bar(self.console, title, data["estimated_seconds"], since=data["started_at"])
            self._bar.move(data["done"], data["total"], data["note"])
        elif event == "step.finished":
            self._close_bar(data)

    def _close_bar(self, data: EventData) -> None:
        self.let_go()
        if data["status"] != "done":
            return  # the error says it, once
        took = took_line(data["seconds"], data["estimated_seconds"])
        peak = f", peak {size(data['peak_rss_bytes'])}" if data["peak_rss_bytes"] else ""
        self.console.print(f"✓ {data['stage']} ({data['step']}): {took}{peak}", markup=False)


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
