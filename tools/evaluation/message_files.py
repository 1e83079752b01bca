"""Messages that a person brings in a file: one a line of a text, or one a record, read in a confined child.

The child imports this module: what else judging by people needs takes half a second to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from tunesmith.memory.confined import Limits, confined
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.local_paths import existing_path
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.record_files import ASKED, TEXT, Unreadable, text_records

_TEXT_BYTES = 4 << 20
"""Far more than a person rates: a larger file was named by mistake."""
_READ = 1_000
"""Records of a file that are looked at."""
_LIMITS = Limits(cpu_s=10.0, memory_bytes=1 << 30)
"""An honest file of so many records takes a second; what is nested without end is stopped."""


def messages_in(name: str) -> list[str]:
    """The messages of a file: a text with one a line, or JSONL or CSV with one a record. Raises BadInput, NotFound."""
    path = existing_path(name, "name a file of messages, one a line")
    if path.suffix.lower() in TEXT:
        messages = [str(text) for text in confined(read_records, {"path": str(path.absolute())}, str(path), _LIMITS)]
    else:
        messages = [line for line in read_plain_text(path, _TEXT_BYTES).splitlines() if line.strip()][:_READ]
    if not messages:
        raise BadInput(f"{path} holds no messages; write one a line")
    return messages


def read_records(argument: Mapping[str, str]) -> Iterator[str]:
    """The child's side: the message of each record of a file."""
    path = Path(argument["path"])
    for number, record in enumerate(islice(text_records(path), _READ), 1):
        text = "" if isinstance(record.value, Unreadable) else _message_of(record.value)
        if not text:
            columns = ", ".join(map(str, record.value))[:80] if isinstance(record.value, dict) else ""
            why = record.value.reason if isinstance(record.value, Unreadable) else f"no message among “{columns}”"
            raise BadInput(f"{path}: record {number}: {why}; name the column or the field message")
        yield text


def _message_of(record: object) -> str:
    """A text itself, the last turn of a user, or the field that is named as a message is."""
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        return ""
    if isinstance(turns := record.get("messages"), list):
        users = [turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
        return users[-1] if users and isinstance(users[-1], str) else ""
    fields = {str(name).strip().lower(): value for name, value in record.items() if isinstance(value, str)}
    return next((fields[name] for name in ASKED if fields.get(name, "").strip()), "")
