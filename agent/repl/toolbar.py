"""The bar under the prompt: the jobs at work, or nothing at all."""

from __future__ import annotations

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.styles import Style

TOOLBAR_STYLE = Style.from_dict({"bottom-toolbar": "noreverse", "job": "reverse"})


def toolbar(line: str) -> StyleAndTextTuples:
    """The toolbar for what the monitor says runs."""
    return [("class:job", f" {line} ")] if line else []
