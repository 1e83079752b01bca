"""The REPL: a prompt at once, everything else loaded behind it.

This module imports prompt-toolkit and nothing that takes longer; the store, the stages and rich arrive in a thread
that starts when the prompt is on the screen. Ctrl-C clears the line and, twice within a second on an empty one,
leaves; Ctrl-D leaves; neither ever stops a job.
Plain text goes to `Shell.converse`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, ThreadedHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.patch_stdout import patch_stdout

from tunesmith.agent.repl.completion import SlashCompleter
from tunesmith.agent.repl.toolbar import TOOLBAR_STYLE, toolbar, without_mouse
from tunesmith.agent.version import VERSION
from tunesmith.memory.errors import BadInput

if TYPE_CHECKING:
    from tunesmith.agent.repl.shell import Shell

_PROMPT = "tunesmith ❯ "
HELLO = f"tunesmith {VERSION}. Say what a model should learn; “exit” leaves."
_MENU_LINES = 8
"""So that the menu never pushes the page away that is asked about."""
_TWICE_S = 1.0
"""Two Ctrl-C within it leave; one alone only ends what is typed or waited for."""
_TYPED_AHEAD_S = 0.5
"""Keys that a prompt finds when it begins were typed before it was there: each Enter among them is one."""
_WOKEN = "\0woken"
"""What the prompt returns when a background thread wants the main one; nobody can type it."""


def repl() -> int:
    """Talk until the user leaves; the exit code. Raises BadInput without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput("the REPL needs a terminal; `tunesmith --help` lists the commands that do not")
    return _Repl().run()


class _LateHistory(History):
    """The history file, whose place is known only once the settings are loaded."""

    def __init__(self, owner: _Repl) -> None:
        super().__init__()
        self._owner = owner

    def load_history_strings(self) -> Iterable[str]:
        yield from FileHistory(self._owner.shell().settings.home / "history").load_history_strings()

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):  # a full disk costs the line its place in the history and nothing else
            FileHistory(self._owner.shell().settings.home / "history").store_string(string)


class _Repl:
    """The prompt in the main thread, and the thread that loads what stands behind it."""

    def __init__(self) -> None:
        self._loaded = threading.Event()
        self._shell: Shell | None = None
        self._error: BaseException | None = None
        self._typed = ""
        self._begun = 0.0
        """When the present prompt began to read."""
        self._interrupts = _Interrupts()
        self._session: PromptSession[str] = _Session(
            _PROMPT,
            history=ThreadedHistory(_LateHistory(self)),
            completer=SlashCompleter(lambda: self._shell),
            bottom_toolbar=self._toolbar,
            style=TOOLBAR_STYLE,
            key_bindings=_bindings(self._interrupts, lambda: self._begun),
            complete_while_typing=True,
        )

    def run(self) -> int:
        """One line after the other until Ctrl-D, /quit or Ctrl-C twice."""
        print(HELLO)
        self._session.app.after_render += self._load_once
        with patch_stdout(raw=True):
            try:
                while self._next_line():
                    pass
            except KeyboardInterrupt:
                pass  # the second Ctrl-C, while the first was still being told
            if self._loaded.is_set() and self._shell:
                self._shell.leave()
        return 0

    def _next_line(self) -> bool:
        """Prompt and carry out; False to leave. A Ctrl-C that no prompt was there to read counts as one that was."""
        try:
            self._begun = time.monotonic()
            line = self._session.prompt(default=self._typed, pre_run=self._woken_before)
            self._typed = ""
            return self._take(line)
        except EOFError:
            return False
        except KeyboardInterrupt:  # once clears the line, as in a shell; twice leaves
            print("interrupted; jobs go on")
            return not self._interrupts.again()

    def _take(self, line: str) -> bool:
        """Carry out what the prompt returned; False to leave."""
        if self._error:
            raise self._error
        if line == _WOKEN:
            self.shell().answer_questions()
            return True
        if not line.strip() and not self._loaded.is_set():
            return True  # no page can be open yet, so an empty line waits for nothing
        return self.shell().handle(line.strip())

    def shell(self) -> Shell:
        """What stands behind the prompt, waited for. Raises what kept it from loading."""
        self._loaded.wait()  # imports end by themselves, in a second or two
        if self._shell is None:
            raise self._error or RuntimeError("the REPL did not load")
        return self._shell

    def _load_once(self, app: Application[str]) -> None:
        # Not before the prompt is on the screen: imports would keep the interpreter from drawing it.
        app.after_render -= self._load_once
        threading.Thread(target=self._load, daemon=True).start()  # `exit` waits for no import

    def _load(self) -> None:
        try:
            from tunesmith.tools.core.settled import uncollected

            with uncollected():
                from tunesmith.agent.repl.shell import Shell

                shell = Shell.open(wake=self.wake)
            self._shell = shell
            self._loaded.set()
            shell.begin()
        except BaseException as error:  # of a thread: whoever waits for it raises it
            self._error = error
            self._loaded.set()
            self.wake()

    def wake(self) -> None:
        """Bring the main thread out of its prompt, what was typed kept for the next one; from any thread."""
        app = self._session.app
        if app.loop and app.is_running:
            app.loop.call_soon_threadsafe(self._leave_prompt)

    def _woken_before(self) -> None:
        # A question that came between two prompts found no prompt to wake.
        if self._error or (self._shell and self._shell.has_questions()):
            self._leave_prompt()

    def _leave_prompt(self) -> None:
        app = self._session.app
        if app.future and not app.future.done():
            self._typed = self._session.default_buffer.text
            app.exit(result=_WOKEN)

    def _toolbar(self) -> StyleAndTextTuples:
        return toolbar(self._shell.monitor.line() if self._shell else "")


class _Session(PromptSession[str]):
    """A prompt that leaves the screen as it is until there is something to complete: its menu takes eight lines."""

    @property
    def reserve_space_for_menu(self) -> int:
        return _MENU_LINES if self.default_buffer.text.startswith("/") else 0

    @reserve_space_for_menu.setter
    def reserve_space_for_menu(self, lines: int) -> None:
        pass


class _Interrupts:
    """When Ctrl-C was pressed last."""

    def __init__(self) -> None:
        self._last = -_TWICE_S  # the clock may begin at 0: the first one is the second of none

    def again(self) -> bool:
        """Count one; whether it is the second within a second."""
        before, self._last = self._last, time.monotonic()
        return self._last - before < _TWICE_S


def _bindings(interrupts: _Interrupts, begun: Callable[[], float]) -> KeyBindings:
    """Ctrl-C clears the line, twice on an empty one it leaves; a new line that was pasted, or Alt-Enter, sends nothing.

    Ctrl-C is a key here, so that no KeyboardInterrupt runs through an event loop.
    """
    bindings = without_mouse()

    @Condition
    def pasted() -> bool:
        """More keys came in the same moment, and not because they were typed before the prompt was there."""
        # The terminal answers where the cursor is (CPR) among the keys.
        waiting = [key for key in get_app().key_processor.input_queue if key.key != Keys.CPRResponse]
        return bool(waiting) and time.monotonic() - begun() > _TYPED_AHEAD_S

    @bindings.add("enter", filter=pasted, eager=True)
    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c", eager=True)
    @bindings.add("<sigint>")
    def _clear(event: KeyPressEvent) -> None:
        again = interrupts.again()
        if again and not event.current_buffer.text:
            event.app.exit(exception=EOFError)
            return
        event.current_buffer.reset()

    return bindings
