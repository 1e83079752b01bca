"""Completion at the prompt: commands, the fields of a stage, ids of runs and steps.

Light, and silent until the shell is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    from tunesmith.agent.repl.shell import Shell

COMMANDS = {
    "runs": "all runs, or `/runs show R`, `/runs sql SELECT …`",
    "run": "one run: its steps, times, peaks and artifacts",
    "continue": "go on with a run that follows a plan",
    "jobs": "steps at work, and those that wait for a yes",
    "attach": "follow a step's progress; Ctrl-C lets go of it",
    "stop": "end a step (asks first)",
    "compare": "two arms of a run: /compare r1 --arms base,adapter",
    "report": "write a run's report: /report r1",
    "serve": "what is served; `/serve stop` ends it",
    "sql": "a read-only question: /sql SELECT … FROM v_steps",
    "demo": "the whole arc on the bundled model; --fast for the short one",
    "suite": "check suites, or grade stored outputs",
    "new": "a fresh conversation; the old one is kept",
    "resume": "go on with an earlier conversation",
    "conversations": "all conversations, the newest first",
    "undo": "take the newest turn of the conversation back",
    "compact": "let a short account stand for the turns so far",
    "export": "write the conversation as Markdown",
    "doctor": "what this machine and what is installed can do",
    "help": "this list, or the fields of a stage: /help train",
    "quit": "leave; jobs go on",
}
"""Slash commands beside the stages, with a word on each."""

_RUN_COMMANDS = ("run", "continue", "report", "compare")
_STEP_COMMANDS = ("attach", "stop")
_ACTIONS = {"runs": ("list", "show", "sql"), "jobs": ("list",), "serve": ("status", "stop"), "demo": ("--fast",)}


class SlashCompleter(Completer):
    """Completes lines that begin with a slash."""

    def __init__(self, shell: Callable[[], Shell | None]) -> None:
        self._shell = shell

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
        shell = self._shell()
        if command in _ACTIONS:
            return [(action, "") for action in _ACTIONS[command]]
        if shell is None:
            return []
        if command in catalog.BY_NAME:
            return shell.field_words(command, word)
        if command in _RUN_COMMANDS:
            return shell.run_words()
        return shell.step_words() if command in _STEP_COMMANDS else []


def _all_commands() -> dict[str, str]:
    return {entry.name: entry.summary for entry in catalog.STAGES} | COMMANDS
