"""Completion at the prompt: commands, the fields of a stage, ids of runs and steps.

Light, and silent until what stands behind the prompt is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from tunesmith.agent.repl.command_table import COMMANDS
from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    from tunesmith.agent.repl.shell import Shell

_RUN_COMMANDS = ("show", "resume", "continue", "report", "explain", "compare", "rate")
_STEP_COMMANDS = ("attach", "stop")
_ACTIONS = {
    "runs": ("list", "show", "recover", "sql"),
    "jobs": ("list",),
    "serve": ("status", "stop", "quantized", "merged", "adapter"),
    "demo": ("--fast",),
    "conversations": ("resume",),
}


class SlashCompleter(Completer):
    """Completes lines that begin with a slash."""

    def __init__(self, screen: Callable[[], Shell | None]) -> None:
        self._screen = screen

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What can stand at the cursor."""
        line = document.text_before_cursor
        if not line.startswith("/"):
            return
        command, space, rest = line[1:].partition(" ")
        if not space:
            for name, meta in _all_commands().items():
                if name.startswith(command):
                    yield Completion(name, -len(command), display="/" + name, display_meta=meta)
            return
        word = "" if rest.endswith(" ") else (rest.split() or [""])[-1]
        for text, meta in self._words(command, word):
            if text.startswith(word) and text != word:
                yield Completion(text, -len(word), display_meta=meta)

    def _words(self, command: str, word: str) -> Iterable[tuple[str, str]]:
        screen = self._screen()
        if command in _ACTIONS:
            return [(action, "") for action in _ACTIONS[command]]
        if screen is None:
            return []
        if command in catalog.BY_NAME:
            return _field_words(command, word)
        if command in _RUN_COMMANDS:
            return [(run.id, f"{run.name}, {run.status}") for run in screen.monitor.runs]
        running = screen.monitor.running if command in _STEP_COMMANDS else ()
        return [(step.id, f"{step.stage} of {step.run}") for step in running]


def _field_words(stage: str, word: str) -> Iterable[tuple[str, str]]:
    """`field=` for every field of a stage's request, and its values where they can be listed."""
    from tunesmith.agent.commands.fields import choices

    model = catalog.BY_NAME[stage].load().request
    name, equals, _ = word.partition("=")
    if equals and name in model.model_fields:
        field = model.model_fields[name]
        return [(f"{name}={value}", "") for value in (*choices(field), *(field.examples or ()))]
    return [(f"{known}=", info.description or "") for known, info in model.model_fields.items()]


def _all_commands() -> dict[str, str]:
    return {entry.name: entry.summary for entry in catalog.STAGES} | COMMANDS
