"""What a vLLM server that ended left in its log."""

from __future__ import annotations

import re
from pathlib import Path

# What stands before a line: the process, and where it was logged.
_LOGGED = re.compile(r"^(\(\w+ pid=\d+\) ?)?([A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
_NO_CAUSE = ("Engine core initialization failed", "EngineDeadError")


def telling_line(log: Path) -> str:
    """The last line of a server's log that names an error and its cause, else its last line.

    vLLM's engine is a child process: it tells the cause first, and its parent then says only that it failed.
    """
    plain = [_LOGGED.sub("", line).rstrip() for line in log.read_text(errors="replace").splitlines()]
    lines = [line for line in plain if line.strip()]
    # A traceback's frames are indented, and may name errors that nobody raised.
    errors = [line for line in lines if "Error" in line and "Traceback" not in line and not line[0].isspace()]
    causes = [line for line in errors if not any(word in line for word in _NO_CAUSE)]
    return (causes or errors or lines or ["its log is empty"])[-1].strip()[-300:]  # the end of a long one says it
