"""A sitting at the terminal: messages typed or pasted, then two keys for each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tunesmith.agent.commands import render
from tunesmith.agent.commands.ask_view import AnswersView
from tunesmith.agent.commands.keys import LEAVE, drain, drop_typed_ahead, keys
from tunesmith.agent.commands.output import Output
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.ratings import Rating, Source
from tunesmith.tools.core.format import count
from tunesmith.tools.evaluation.ask_message import MESSAGE_BYTES_MAX
from tunesmith.tools.evaluation.rated_messages import MOST
from tunesmith.tools.pipeline.ask_models import Answer
from tunesmith.tools.pipeline.rate_answers import Sitting, who_is_here
from tunesmith.tools.pipeline.workspace import Approver

_HELP = "y right · n wrong · u take the last one back · s later · q leave"
_TYPED_MAX = 20_000
"""Characters of a message that come as single keys: more is a paste that the terminal does not mark as one."""


def sit(sitting: Sitting, out: Output, approver: Approver, *, given: bool = False) -> None:
    """Judge what waits, else take messages in; then have answered what was not, and judge that. With `given` messages
    all is answered first. Raises as `Sitting.ask` does."""
    before = set() if given else {*sitting.open()}
    if before:
        if not Judging(sitting, out).go():
            return
    elif not given and sitting.room() > 0:
        Entry(sitting, out).go()
    try:
        sitting.ask(approver)
    except TunesmithError:
        out.say("what was written is kept, and waits")
        raise
    finally:
        out.let_go()
    if sitting.open().keys() - before:
        Judging(sitting, out, later=before).go()


# Two keys a message


@dataclass(slots=True)
class Judging:
    """Message after message, answer 1 and answer 2, until all are judged or the person leaves."""

    sitting: Sitting
    out: Output
    later: set[int] = field(default_factory=set)
    again: int = 0
    """The message that was taken back, which is shown next."""

    def go(self) -> bool:
        """Hold it; False where the person left. What was judged is kept with its second key."""
        self._say(f"Which answers are right? Both, one or none of them may be.  {_HELP}")
        drop_typed_ahead()
        with keys() as key, contextlib.suppress(KeyboardInterrupt):  # leaves, as `q` does: each mark is stored already
            while waiting := {n: one for n, one in self.sitting.open().items() if n not in self.later}:
                number = self.again if self.again in waiting else next(iter(waiting))
                self.again = 0
                self._show(number, waiting[number], len(self.sitting.now()))
                if not self._judge(number, waiting[number], key):
                    return False
            return True
        return False

    def _judge(self, number: int, rating: Rating, key: Callable[[], str]) -> bool:
        """Read both keys; False to leave."""
        pressed: list[bool] = []
        while len(pressed) < 2:
            self.out.console.print(f"is {len(pressed) + 1} right? \\[y/n] ", end="")
            got = key()
            self._say(got if got.isalnum() else "")
            if got in LEAVE:
                return False
            if got in "yn":
                pressed.append(got == "y")
            elif got == "s":
                self.later.add(number)
                return True
            elif got == "u" and pressed:
                pressed.clear()
            elif got == "u":
                return self._take_back()
            elif not got.isspace():
                self._say(f"  that is no key here; {_HELP}")
        try:
            self.sitting.rate(number, (pressed[0], pressed[1]), who_is_here("at the terminal"), on_screen=rating)
        except BadInput as error:
            self._say(f"  {error}")
        return True

    def _take_back(self) -> bool:
        try:
            self.again = self.sitting.take_back()
            self.later.discard(self.again)
            self._say(f"  message {self.again} was taken back; here it is again")
        except BadInput as error:
            self._say(f"  {error}")
        return True

    def _show(self, number: int, rating: Rating, of: int) -> None:
        apart = "  (generated: counted apart)" if rating.source == "generated" else ""
        self._say(f"\n[{number} of {of}]{apart}")
        self.out.console.print(render.plain(rating.message), style="bold")
        answers = [
            Answer(arm=str(place), artifact="", text=text, seconds=0.0, cut_at_tokens=cut)
            for place, (text, cut) in enumerate(rating.answers_in_order, 1)
        ]
        self.out.console.print(AnswersView(answers, lambda one: f"answer {one.arm}"))

    def _say(self, text: str) -> None:
        self.out.console.print(render.plain(text))


# Messages


@dataclass(slots=True)
class Entry:
    """Messages as they are typed or pasted, each kept with its Enter."""

    sitting: Sitting
    out: Output
    pasted: str = ""
    """A paste of several lines that ended the prompt."""
    was_pasted: bool = False

    def go(self) -> None:
        """Until an empty line, Ctrl-C, Ctrl-D, or as many as one sitting holds."""
        room = self.sitting.room()
        waits = f"{count(MOST - room, 'message')} of before will be asked too; " if room < MOST else ""
        self.out.say(
            f"{waits}write or paste up to {room} messages as people would send them, ten or more for a verdict; Enter "
            "after each, an empty line ends"
        )
        while self.sitting.room() > 0:
            try:
                text = self._prompt(f"message {len(self.sitting.now()) + 1}: ")
                texts, source = self._messages(text)
            except BadInput as error:
                self.out.say(str(error))
                continue
            except (EOFError, KeyboardInterrupt):  # no more messages
                return
            if not texts:
                return
            for line in self.sitting.add_all(texts, source):
                self.out.say(line)

    def _messages(self, text: str) -> tuple[list[str], Source]:
        """What a line or a paste holds; nothing ends the entry."""
        source: Source = "pasted" if self.was_pasted else "typed"
        if not self.pasted:
            return ([text], source) if text.strip() else ([], source)
        lines = [line for line in self.pasted.splitlines() if line.strip()]
        if len(lines) > 1 and self._one_or_many(len(lines)) == "one":
            return [self.pasted], source
        return lines, source

    def _one_or_many(self, lines: int) -> Literal["one", "many"]:
        self.out.console.print(f"{count(lines, 'line')} were pasted: m a message each, o one message? ", end="")
        with keys() as key:
            while (pressed := key()) not in ("m", "o", *LEAVE):
                pass
        self.out.console.print(pressed if pressed.isalnum() else "")
        if pressed in LEAVE:
            raise BadInput("nothing of the paste was taken")
        return "one" if pressed == "o" else "many"

    def _prompt(self, question: str) -> str:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.input.typeahead import clear_typeahead
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.keys import Keys
        from prompt_toolkit.output import create_output

        self.pasted, self.was_pasted = "", False
        bindings = KeyBindings()
        bindings.add(Keys.Vt100MouseEvent, eager=True)(lambda event: None)  # a pasted `ESC [ 31 m` is taken for one

        @bindings.add(Keys.BracketedPaste)
        def paste(event: KeyPressEvent) -> None:
            data = event.data.replace("\r\n", "\n").replace("\r", "\n")
            self.was_pasted = True
            # A terminal may paste lone surrogates, which no encoding takes.
            if len(data.encode(errors="replace")) > MESSAGE_BYTES_MAX:
                refusal = (
                    f"the paste has {len(data):,} characters; a message has up to {MESSAGE_BYTES_MAX:,}: paste less"
                )
                event.app.exit(exception=BadInput(refusal))
            elif "\n" in data.strip("\n"):
                self.pasted = event.current_buffer.text + data
                event.app.exit(result="")
            else:
                event.current_buffer.insert_text("".join(c for c in data.strip("\n") if c.isprintable() or c == "\t"))

        @bindings.add(Keys.Any, filter=Condition(lambda: len(session.default_buffer.text) >= _TYPED_MAX))
        def flood(event: KeyPressEvent) -> None:
            if not event.app.is_done:
                refusal = (
                    f"more than {_TYPED_MAX:,} characters came as keys; give them with --messages FILE, or paste less"
                )
                event.app.exit(exception=BadInput(refusal))

        terminal = create_output(stdout=sys.stderr)
        session: PromptSession[str] = PromptSession(key_bindings=bindings, output=terminal)
        try:
            return session.prompt(question)
        except BadInput:  # the rest of the flood would be read as answers; it goes on arriving until such a pause
            drain(1.0)
            clear_typeahead(session.app.input)
            raise
