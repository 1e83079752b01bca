"""The bar under the prompt, the jobs at work or nothing at all, and the keys of every prompt."""

from __future__ import annotations

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.styles import Style

TOOLBAR_STYLE = Style.from_dict({"bottom-toolbar": "noreverse", "job": "reverse"})


def toolbar(line: str) -> StyleAndTextTuples:
    """The toolbar for what the monitor says runs."""
    return [("class:job", f" {line} ")] if line else []


def without_mouse() -> KeyBindings:
    """Key bindings under which nothing is taken for a mouse: prompt-toolkit reads a pasted colour, `ESC [ 31 m`, as one
    and raises ValueError."""
    bindings = KeyBindings()
    bindings.add(Keys.Vt100MouseEvent, eager=True)(lambda event: None)
    return bindings
