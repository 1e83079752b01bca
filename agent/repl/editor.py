"""A text in the user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from tunesmith.memory.errors import BadInput


def in_editor(text: str, program: str) -> str:
    """The text as the user leaves it in an editor, which has the terminal meanwhile. Raises BadInput."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        file = Path(folder) / "behaviour.yaml"
        file.write_text(text)
        try:
            ended = subprocess.run([*shlex.split(program), os.fspath(file)], check=False, cwd=folder)
        except OSError as error:
            raise BadInput(f"the editor {program!r} cannot be run ({error.strerror}); set $EDITOR") from None
        if ended.returncode:
            raise BadInput(f"the editor {program!r} ended with {ended.returncode}; the draft stays as it was")
        return file.read_text()
