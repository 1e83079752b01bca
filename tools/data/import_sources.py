"""The records of a file or a folder, one after another, each with its number; bounded, and never a pickle.

JSONL, JSON and CSV are read here; Parquet, saved datasets and hub data sets by `datasets`, which only a worker loads.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tunesmith.memory.errors import BadInput

PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
COLUMNAR = (".parquet", ".arrow")
_MAX_LINE_CHARS = 20_000_000
_MAX_JSON_BYTES = 1 << 30
_MAX_ROWS = 1_000_000


class Unreadable:
    """A line that is no record; it is told with its number, and the others are read on."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def files_of(source: Path) -> list[Path]:
    """The files that a source names: itself, or those of the known kinds in a folder, in the order of their names."""
    if source.is_file():
        return [source]
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (*PLAIN, *COLUMNAR) and p.is_file())
    if not files:
        raise BadInput(f"{source} holds no {', '.join((*PLAIN, *COLUMNAR))} file")
    return files


def plain_records(path: Path, limit: int = _MAX_ROWS) -> Iterator[object]:
    """The records of a JSONL, JSON or CSV file; a line that is none comes as `Unreadable`."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return islice(_csv(path, "\t" if suffix == ".tsv" else ","), limit)
    if suffix == ".json":
        return islice(_json(path), limit)
    return islice(_jsonl(path), limit)


def _jsonl(path: Path) -> Iterator[object]:
    try:
        with path.open(encoding="utf-8-sig", errors="strict", newline="\n") as file:
            while line := file.readline(_MAX_LINE_CHARS):
                if not line.strip():
                    continue
                if len(line) >= _MAX_LINE_CHARS and not line.endswith("\n"):
                    raise BadInput(f"{path} has a line of over {_MAX_LINE_CHARS:,} characters: it is no JSONL file")
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield Unreadable(f"it is no JSON ({str(error)[:80]})")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text from byte {error.start} on; save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _json(path: Path) -> Iterator[object]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise BadInput(f"{path} is larger than 1 GiB; write it as JSONL, one record a line")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no JSON: {str(error)[:120]}; a file of one record a line is named .jsonl") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    if isinstance(document, dict):  # {"data": [...]} and the like
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 and len(document) <= 6 else [document]
    yield from document if isinstance(document, list) else [document]


def _csv(path: Path, delimiter: str) -> Iterator[object]:
    csv.field_size_limit(_MAX_LINE_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sample = file.readline()
            if delimiter == "," and sample.count(";") > sample.count(","):
                delimiter = ";"
            file.seek(0)
            for record in csv.DictReader(file, delimiter=delimiter):
                if None in record:
                    yield Unreadable("it has more cells than there are columns")
                    continue
                yield {name: value for name, value in record.items() if value is not None}
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text from byte {error.start} on; save it as UTF-8") from None
    except csv.Error as error:
        raise BadInput(f"{path} is no CSV: {error}") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
