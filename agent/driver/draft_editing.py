"""A description that is open, as text for the user's editor and back: every word as it was written."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import yaml
from pydantic import ValidationError

from tunesmith.agent.driver import describing
from tunesmith.agent.driver.describing import Interview
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.wrong_values import sentences
from tunesmith.tools.data.description import DescriptionDraft, Example

_HEAD = """\
# The new behaviour, in your words. Save and close to keep it; an empty part is asked for again.
# Each example is a message and the answer to it; a text of several lines stands behind a |.
"""


def as_text(interview: Interview) -> str:
    """The draft as YAML."""
    draft = interview.draft
    parts = {"when": draft.when, "what": draft.what, "never": draft.never}
    examples = [{"message": one.prompt, "answer": one.answer} for one in draft.examples]
    return _HEAD + yaml.safe_dump({**parts, "examples": examples}, allow_unicode=True, sort_keys=False, width=10_000)


def taken_from(text: str, home: Path, interview: Interview) -> Interview:
    """The draft as it was edited, kept. Raises BadInput where the text is no draft; the one before stays."""
    try:
        parts = yaml.safe_load(text) or {}
        examples = [
            Example(prompt=str(one["message"]), answer=str(one["answer"])) for one in parts.pop("examples", None) or ()
        ]
        said = {name: str(value or "") for name, value in parts.items()}
        draft = DescriptionDraft.model_validate({**said, "examples": examples})
    except (yaml.YAMLError, ValidationError, KeyError, TypeError, AttributeError) as error:
        told = sentences(error, DescriptionDraft) if isinstance(error, ValidationError) else str(error)
        why = " ".join(told.split())[:160]
        raise BadInput(
            f"the edited draft cannot be read ({why}); it stays as it was. Say “edit” to try again"
        ) from None
    return describing.keep(home, interview, draft)


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
