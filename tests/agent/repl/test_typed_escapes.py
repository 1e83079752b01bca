"""What a terminal sends that is no key: the prompt goes on."""

from __future__ import annotations

from typing import Any

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from tunesmith.agent.repl.repl import _bindings, _Interrupts
from tunesmith.agent.repl.toolbar import without_mouse

SEQUENCES = (
    "\x1b[31m", "\x1b[1;31m", "\x1b[;;m", "\x1b[0;0M", "\x1b[5M", "\x1b[<5M", "\x1b[Mzzz", "\x1b[M\x7f\x7f\x7f",
    "\x1b[<0;1;1M", "\x1b[999~", "\x1b[I", "\x1b[1;1R", "\x1b[201~",
)  # fmt: skip


@pytest.mark.parametrize("at_a_price", [False, True])
def test_a_raw_escape_sequence_raises_nothing_and_the_line_is_read(at_a_price: bool) -> None:
    bindings = without_mouse() if at_a_price else _bindings(_Interrupts(), lambda: 0.0)
    for sequence in SEQUENCES:
        errors: list[object] = []
        with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
            session: PromptSession[str] = PromptSession("> ", key_bindings=bindings)

            def ended(
                loop: object, context: dict[str, object], session: Any = session, errors: list[object] = errors
            ) -> None:
                errors.append(context.get("exception"))
                session.app.exit(result="")

            session.app._handle_exception = ended  # type: ignore[method-assign]
            keys.send_text(f"{sequence}how are things\r")
            line = session.prompt() or session.default_buffer.text
        assert not errors, (sequence, errors)
        assert line.endswith("how are things") or "\n" in line, (sequence, line)
