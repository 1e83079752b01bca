"""CONTRIBUTING is a map of this tree: what it names is there, and its walks are as short as it says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.fixtures.tables import table

ROOT = Path(__file__).parents[2]
FOLDERS = ("agent", "tools", "memory")
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
_NAMED = re.compile(r"`(?:([\w./]+\.py):)?([A-Za-z_]\w*(?:\.\w+)?)(?:\(job\))?`")


def walks() -> dict[str, str]:
    section = TEXT.partition("## Four walks")[2].partition("\n## ")[0]
    paragraphs = [" ".join(part.split()) for part in section.split("\n\n") if part.strip()]
    return {re.match(r"\*\*(.+?)\*\*", part)[1]: part for part in paragraphs}  # type: ignore[index]


def defined(path: Path) -> set[str]:
    """Names of functions, classes, methods (as `Class.method`, too) and fields in a file."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@cache
def everywhere() -> dict[Path, set[str]]:
    return {path: defined(path) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.heavy
@table("walk", walks())
def test_what_a_walk_names_is_in_the_tree(walk: str) -> None:
    named = _NAMED.findall(walks()[walk])
    assert len(named) >= 8
    path = ""
    for place, name in named:
        path = place or path
        files = [file for file in everywhere() if file.as_posix().endswith(f"/{path}")]
        assert len(files) == 1, f"{path} names {len(files)} files"
        where = everywhere()[files[0]] if place else set().union(*everywhere().values())
        assert name in where, f"{path}:{name}"


def test_a_walk_has_as_many_hops_as_it_says_and_as_a_trace_counts() -> None:
    traced = re.findall(r"way\.hops <= (\d+)", (ROOT / "tests/test_hops.py").read_text())
    told = {walk: re.search(r"\((\d+) hops\)", text) for walk, text in walks().items()}
    counted = {walk: hops[1] for walk, hops in told.items() if hops}
    assert [*counted.values()] == traced
    assert all(int(hops) == walks()[walk].count("→") for walk, hops in counted.items())


@pytest.mark.heavy
def test_every_path_in_the_text_is_there() -> None:
    for path in re.findall(r"`([\w./]+\.py)(?::\w+)?`", TEXT):
        if "NAME" not in path and "/" in path:
            assert any(file.as_posix().endswith(f"/{path}") for file in [*everywhere(), *ROOT.glob("tests/**/*.py")]), (
                path
            )
