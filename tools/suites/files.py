"""The files of a suite: only plain ones, only inside the suite's own folder, never through a link.

Reads YAML, JSON, JSON lines, CSV and text. Every refusal is a BadInput that begins with `file:line:`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.yaml_nodes import MAX_NODES, YamlRefused, parse_yaml
from tunesmith.tools.suites.budget import BudgetSpent, TextBudget
from tunesmith.tools.suites.template import LONE_SURROGATE, has_lone_surrogate

CODE_SUFFIXES = frozenset((
    ".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".jsx", ".tsx", ".py", ".rb", ".go", ".sh", ".exe", ".wasm",
    ".pl", ".php", ".lua",
))  # fmt: skip
# One pass: a template begins, ends, or reads the environment.
_ENV = re.compile(r"(?P<open>\{[{%])|(?P<close>\})|\benv\s*[.\[]")
_JSON_SPACE = re.compile(r"[ \t\n\r,]*")
_MAX_NAME_CHARS = 1_000
"""Longer than a path that a person writes: text that was taken for a name."""
_MAX_MESSAGE_CHARS = 700
"""Of a refusal, which quotes the suite: a name of a megabyte would fill the screen."""
_MAX_DIGITS = 300
"""As many as a float holds; from 4,300 on Python refuses to read a number."""
_MAX_DEPTHS = 2
"""`**` in a pattern: each multiplies the folders that are walked."""
_MAX_MATCHES = 10_000
"""Files of one pattern: more is a pattern that took in a folder by mistake."""
_TABLE_SUFFIXES = (".yaml", ".yml", ".json", ".jsonl", ".csv")


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; put it in quotes")
    return int(digits)


def _reads_environment(text: str) -> bool:
    inside = False
    for mark in _ENV.finditer(text):
        if inside and mark.lastgroup is None:
            return True
        inside = mark.lastgroup == "open" or (inside and mark.lastgroup is None)
    return False


def _brief(message: str) -> str:
    """A message that quotes something endless, without its middle."""
    return message if len(message) <= _MAX_MESSAGE_CHARS else f"{message[:300]} … {message[-200:]}"


_Value = TypeVar("_Value")


class SuiteFiles:
    """Reads what one suite file names, and remembers on which line each value stood."""

    def __init__(self, suite: Path) -> None:
        self.suite = suite
        self.root = suite.parent.resolve()
        self.budget = TextBudget()
        self._where: dict[int, str] = {}  # id of a dict or list → "file:line"
        self._alive: list[object] = []  # keeps those ids from being used again

    def at(self, value: object) -> str:
        """`file:line` of a mapping or list that was read here; the suite's name where that is not known."""
        return self._where.get(id(value), str(self.suite))

    def refuse(self, value: object, message: str) -> NoReturn:
        """Raise BadInput at the place of `value`."""
        raise BadInput(f"{self.at(value)}: {_brief(message)}")

    def mark(self, value: _Value, place: str) -> _Value:
        """Remember `place` as where `value` stood."""
        self._where[id(value)] = place
        self._alive.append(value)
        return value

    def named(self, reference: str, near: object) -> list[Path]:
        """The files inside the suite's folder that `reference` (a name or a pattern, file:// or not) stands for."""
        name = reference.removeprefix("file://")
        if len(name) > _MAX_NAME_CHARS or "\0" in name:
            self.refuse(near, f"{reference[:60]!r}… ({len(reference)} characters) is no file name")
        if "://" in name:
            self.refuse(near, f"{reference!r} is remote; download it into the suite's folder and name the file")
        if Path(name).suffix.lower().split(":")[0] in CODE_SUFFIXES:
            self.refuse(near, f"{reference!r} is code, which is never run; put its result in a YAML or JSON file")
        if Path(name).is_absolute() or ".." in Path(name).parts or not name:
            self.refuse(near, f"{reference!r} leaves the suite's folder; move the file beside the suite")
        try:
            return self._matching(name, reference, near)
        except OSError as error:  # a name too long, a folder without rights
            self.refuse(near, f"{reference!r} cannot be read ({error.strerror}); check the name and the rights")

    def _matching(self, name: str, reference: str, near: object) -> list[Path]:
        if not re.search(r"[*?\[]", name):
            return [self._plain(self.root / name, near)]
        segments = Path(name).parts
        # the last has none behind it
        name = "/".join(part for part, last in zip(segments, ("", *segments), strict=False) if not part == last == "**")
        if name.split("/").count("**") > _MAX_DEPTHS:
            self.refuse(near, f"the pattern {reference!r} has ** more than {_MAX_DEPTHS} times; name the folders")
        try:
            matches = itertools.islice((path for path in self.root.glob(name) if path.is_file()), _MAX_MATCHES + 1)
            paths = sorted(matches)
        except ValueError as error:
            self.refuse(near, f"the pattern {reference!r} cannot be read: {error}; ** stands for whole folders only")
        if len(paths) > _MAX_MATCHES:
            self.refuse(near, f"the pattern {reference!r} matches over {_MAX_MATCHES} files; name fewer")
        if not paths:
            self.refuse(near, f"no file matches {reference!r} in {self.root}")
        return [self._plain(path, near) for path in paths]

    def _plain(self, path: Path, near: object) -> Path:
        inside = path.relative_to(self.root)
        for depth in range(1, len(inside.parts) + 1):
            if self.root.joinpath(*inside.parts[:depth]).is_symlink():
                self.refuse(near, f"{inside} goes through a symbolic link; put a copy of the file there")
        if not path.exists():
            self.refuse(near, f"there is no file {inside} in {self.root}; correct the name")
        return path

    def read(self, path: Path) -> str:
        """The text of a file, counted against the suite's budget. Raises BadInput."""
        text = read_plain_text(path)
        try:
            self.budget.take(len(text))
        except BudgetSpent as error:
            raise BadInput(f"{path}: {error}") from None
        return text

    def load(self, path: Path) -> object:
        """The plain data of a YAML, JSON, JSONL or CSV file, by its suffix; CSV as a list of rows."""
        text = self.read(path)
        suffix = path.suffix.lower()
        if suffix in (".yaml", ".yml"):
            return self._checked(self._yaml(text, path))
        if suffix == ".json":
            return self._checked(self._json(text, path))
        if suffix == ".jsonl":
            return self._checked(self._json_lines(text, path))
        if suffix == ".csv":
            return self._checked(list(self._rows(text, path)))
        raise BadInput(f"{path}: {suffix or 'no suffix'} is not read here; use one of {', '.join(_TABLE_SUFFIXES)}")

    def _yaml(self, text: str, path: Path) -> object:
        try:
            document = parse_yaml(text, str(path))
        except YamlRefused as error:
            raise BadInput(f"{path}:{error.line}: {_brief(str(error))}") from None
        self._where.update({key: f"{path}:{line}" for key, line in document.lines.items()})
        self._alive.append(document)
        return document.plain

    def _json(self, text: str, path: Path, first_line: int = 1) -> object:
        # Before it is parsed: a value takes many times its text in memory. Strings may hold such marks, hence thrice.
        if text.count(",") + text.count("[") + text.count("{") > 3 * MAX_NODES:
            raise BadInput(f"{path}: over {MAX_NODES} values; split it into several files")
        try:
            value = json.loads(text, parse_int=_whole_number)
        except RecursionError:  # brackets in brackets outrun Python's stack
            raise BadInput(f"{path}:{first_line}: nested too deep; flatten it") from None
        except ValueError as error:
            line = first_line + getattr(error, "lineno", 1) - 1
            raise BadInput(f"{path}:{line}: not valid JSON: {getattr(error, 'msg', error)}") from None
        if isinstance(value, list) and not isinstance(next(iter(value), None), str | int | float | None):
            value = self._json_list(text, path, first_line)
        return self.mark(value, f"{path}:{first_line}") if isinstance(value, dict | list) else value

    def _json_list(self, text: str, path: Path, line: int) -> list[object]:
        """The items of a list that is known to be valid, each marked with its own line."""
        decoder, items = json.JSONDecoder(parse_int=_whole_number), []
        # Ignored: the pattern matches nothing, too, so there is always a match.
        counted, at = 0, _JSON_SPACE.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]
        while text[at] != "]":
            line += text.count("\n", counted, at)
            item, end = decoder.raw_decode(text, at)
            items.append(self.mark(item, f"{path}:{line}") if isinstance(item, dict | list) else item)
            counted, at = at, _JSON_SPACE.match(text, end).end()  # type: ignore[union-attr]  # as above
        return items

    def _json_lines(self, text: str, path: Path) -> list[object]:
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        return [self._json(line, path, number) for number, line in lines]

    def _rows(self, text: str, path: Path) -> Iterator[dict[str, str]]:
        header_line = text.partition("\n")[0]
        # As spreadsheets write it where a comma stands in numbers.
        delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
        # strict: a quote that is never closed is an error, not a cell that swallows the tests behind it.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                raise BadInput(f"{path}:1: a column name stands twice in the header; rename one")
            begins = reader.line_num + 1
            for cells in reader:
                if len(cells) > len(header):
                    raise BadInput(f"{path}:{begins}: {len(cells)} cells, but the header names {len(header)}")
                if any(cells):
                    row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
                    yield self.mark(row, f"{path}:{begins}")
                begins = reader.line_num + 1
        except csv.Error as error:
            raise BadInput(f"{path}:{reader.line_num}: not valid CSV: {error}") from None

    def _checked(self, value: object) -> object:
        """Refuse, at the nearest known line, any text that reads the environment or is no text at all."""
        stack: list[tuple[object, object]] = [(value, value)]
        seen: set[int] = set()
        while stack:
            item, near = stack.pop()
            if isinstance(item, str):
                if has_lone_surrogate(item):
                    self.refuse(near, LONE_SURROGATE)
                if "env" in item and _reads_environment(item):
                    self.refuse(near, f"{item[:60]!r} reads the environment; write the value itself, or use a var")
            elif isinstance(item, dict | list) and id(item) not in seen:
                seen.add(id(item))  # aliases of YAML are one object in many places
                near = item if id(item) in self._where else near
                stack += [(child, near) for child in ((*item, *item.values()) if isinstance(item, dict) else item)]
        return value
