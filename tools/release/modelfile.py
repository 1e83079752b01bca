"""The file that `ollama create NAME -f Modelfile` reads: which GGUF, by which template, and where an answer stops.

Ollama's reader knows no escapes: a value goes on to the first end of a line at which its quotes are closed, and a
comment to the end of its line. So a stranger's text is written only where it cannot end either.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.tools.core.format import one_line
from tunesmith.tools.release.go_template import GoTemplate


def modelfile(gguf_name: str, template: GoTemplate | None, reason: str, stops: Sequence[str]) -> str:
    """`reason` says why there is no template; `stops` are the tokens at which the model was taught to end."""
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{template.text}"""' if template else f"# TEMPLATE: {one_line(reason)}",
    ]
    return "\n".join([*lines, *map(_stop_line, stops)]) + "\n"


def _stop_line(token: str) -> str:
    if not token or '"' in token or not token.isprintable():
        return f"# a stop word that a Modelfile cannot hold: {one_line(repr(token))}"
    return f'PARAMETER stop "{token}"'
