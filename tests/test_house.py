"""The house's laws over the whole tree: who may import whom, how long things may be, what the light side loads."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "tools", "memory", "prompts")
MAY_IMPORT = {
    "agent": {"agent", "tools", "memory", "prompts"},
    "tools": {"tools", "memory", "prompts"},
    "memory": {"memory"},
    "prompts": {"prompts"},
}
HEAVY = (
    "torch", "transformers", "trl", "peft", "vllm", "llmcompressor", "datasets", "pandas", "bitsandbytes", "accelerate",
    "compressed_tensors", "safetensors", "gguf",
)  # fmt: skip
# Standard library only: they run before or outside the installed package.
STANDALONE = {"tools/bootstrap.py"}
# Runs inside vLLM, never here: its plugin.
INSIDE_VLLM = {"tools/vllm_plugin/tunesmith_vllm.py"}
# Beside the settings: a server's own parent, which hands its environment on, and who asks which GPUs CUDA may see.
READS_ENVIRONMENT = {"agent/settings.py", "tools/serving_watch.py", "tools/gpus.py"}
FILE_LINES, FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 400, 60, 14


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tunesmith", *(part for part in parts if part != "__init__")))


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node, node.module or ""
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def at_run_time(tree: ast.Module) -> ast.Module:
    """The tree without `if TYPE_CHECKING:` blocks, which never run."""

    class Strip(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return node.orelse
            return self.generic_visit(node)

    return ast.fix_missing_locations(Strip().visit(tree))


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for node, name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "tunesmith" and len(parts) > 1:
            assert parts[1] in MAY_IMPORT[package], f"{name_of(path)}:{node.lineno} imports {name}"
        assert parts[0] != "tests", f"{name_of(path)}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", [p for p in sources() if name_of(p) not in INSIDE_VLLM], ids=name_of)
def test_heavy_libraries_are_imported_only_at_work_and_only_inside_functions(path: Path) -> None:
    tree = at_run_time(ast.parse(path.read_text()))
    at_work = name_of(path).startswith("tools/work/")
    inside = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    for node, name in imports(tree):
        root = name.split(".")[0]
        assert root != "vllm", f"{name_of(path)}:{node.lineno}: vLLM lives in an environment of its own"
        if root in HEAVY:
            assert at_work and id(node) in inside, f"{name_of(path)}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES, f"{name_of(path)} wants another shape"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines"


def test_the_usual_function_is_short() -> None:
    lines = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lines[len(lines) // 2] <= MEDIAN_FUNCTION_LINES


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_public_things_promise_something_and_say_what_they_return(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not path.read_text().strip(), f"{name_of(path)} has no docstring"
    for holder in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]:
        for node in holder.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            assert node.returns is not None, f"{name_of(path)}:{node.lineno} {node.name} says not what it returns"


@pytest.mark.parametrize(
    "path", [p for p in sources() if name_of(p) not in STANDALONE | READS_ENVIRONMENT], ids=name_of
)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        read = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
        assert not read, f"{name_of(path)}:{getattr(node, 'lineno', 0)} reads the environment"


def test_the_light_side_loads_nothing_heavy() -> None:
    modules = [module_of(path) for path in sources() if name_of(path) not in STANDALONE and path.name != "__main__.py"]
    script = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
from tunesmith.tools import catalog
for entry in catalog.STAGES:
    entry.load()
print(*sorted(set({HEAVY!r}) & {{name.partition('.')[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == []


@pytest.mark.heavy
def test_a_wheel_holds_only_the_package(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    _copy_sources(copy)
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, copy],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"tunesmith"}
    packed = {name.removeprefix("tunesmith/") for name in names}
    for path in sources():
        assert name_of(path) in packed, f"{name_of(path)} is not in the wheel"
    for path in (ROOT / "prompts").rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".md", ".j2"):
            assert name_of(path) in packed, f"{name_of(path)} is not in the wheel"


def _copy_sources(target: Path) -> None:
    """The sources as they stand, without build output that would slip into the wheel."""
    import shutil

    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
