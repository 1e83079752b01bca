"""The house's laws over the whole tree: who may import whom, how long things may be, what the light side loads.

One test for a law, which names all that break it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.fixtures.tables import table
from tunesmith.tools.core.settled import uncollected

pytestmark = pytest.mark.xdist_group("house")  # the tree is parsed once

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "tools", "memory", "prompts")
ROOMS = (
    "memory", "prompts", "tools/core", "tools/machine", "tools/cpu", "tools/models", "tools/suites", "tools/serving",
    "tools/data", "tools/imports", "tools/training", "tools/evaluation", "tools/export", "tools/report",
    "tools/release", "tools/pipeline", "agent",
)  # fmt: skip
"""From the ground up: a module imports from its own room and from the ones below it."""
MOST_ARROWS = 90
HEAVY = (
    "torch", "transformers", "trl", "peft", "vllm", "llmcompressor", "datasets", "pandas", "bitsandbytes", "accelerate",
    "compressed_tensors", "safetensors", "gguf",
)  # fmt: skip
# Standard library only: they run before or outside the installed package.
STANDALONE = {"tools/machine/bootstrap.py", "tools/machine/accelerators.py", "tools/machine/environments.py"}
# Runs inside vLLM, never here: its plugins.
INSIDE_VLLM = {
    "tools/cpu/vllm_plugin/tunesmith_vllm.py", "tools/cpu/vllm_plugin/tunesmith_norms.py",
    "tools/cpu/vllm_plugin/tunesmith_engine.py",
    "tools/serving/vllm_guard/tunesmith_guard.py",
}  # fmt: skip
# Heavy as well, beside the `_job` modules: what these share.
AT_WORK = {
    "tools/machine/device.py", "tools/models/gguf.py", "tools/models/tensor_file.py", "tools/training/model.py",
    "tools/training/trainer.py", "tools/training/rows.py", "tools/training/fused_lora.py", "tools/cpu/gptq_blocks.py",
    "tools/training/packing.py", "tools/training/four_bit.py", "tools/training/head_loss.py",
    "tools/training/batch_loss.py", "tools/training/attention.py",
    "tools/export/activation_cache.py", "tools/export/layer_stream.py", "tools/export/streamed_weights.py",
    "tools/export/rounding_recipes.py",
    "tools/evaluation/local_model.py", "tools/suites/grading/embedding_process.py",
    "tools/export/expert_updates.py", "tools/export/stored_layout.py", "tools/export/offloaded_model.py",
    "tools/release/gguf_file.py", "tools/export/calibration.py",
}  # fmt: skip
# Beside the settings: who hands an environment on, whole or in part, and who asks which GPUs CUDA may see.
READS_ENVIRONMENT = INSIDE_VLLM | {
    "agent/commands/settings.py", "tools/serving/supervisor.py", "tools/machine/gpus.py", "memory/confined.py",
}  # fmt: skip
SANDBOX, ESCAPING = "jinja2.sandbox.ImmutableSandboxedEnvironment", "jinja2.Environment"
JINJA = {
    "tools/suites/template.py": SANDBOX,  # of suites
    "tools/models/template_trial.py": SANDBOX,  # of chat templates
    "tools/report/page.py": ESCAPING,  # our own page, around strangers' text
    "tools/release/model_card.py": SANDBOX,  # the same, as Markdown
}
"""Who may render a template of Jinja's, and in which environment."""
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FILE_LINES, FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 400, 60, 14
CODE_LINES, MEAN_LINE_CHARACTERS, YAML_LINES = 56_120, 51.6, 4_300
ROOM_LINES = {"agent/driver": 2_690, "agent/queries": 2_490, "agent/words": 1_515}
READS_WORDS = {
    *(f"agent/driver/{name}.py" for name in ("fallback", "plan_words", "interview", "at_price", "kept_apart")),
    "agent/repl/talk.py",
}
"""What the product may weigh: only ever lowered, so that a new capability pays with lines elsewhere. YAML is that of
`agent/` and `prompts/`."""


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tunesmith", *(part for part in parts if part != "__init__")))


def imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.stmt, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node, node.module or ""
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def targets(nodes: Iterable[ast.AST], modules: Container[str]) -> set[str]:
    """The modules that are really imported: `from package import module` means the module alone."""
    named = [(node, name) for node, name in imports(nodes) if name in modules]
    longer = {id(node) for node, name in named if isinstance(node, ast.ImportFrom) and name != node.module}
    return {
        name
        for node, name in named
        if isinstance(node, ast.Import) or name != node.module or id(node) not in longer  # type: ignore[attr-defined]
    }


@cache
def tree_of(path: Path) -> ast.Module:
    """The module at `path`, parsed once for all that is asked of it."""
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Everything in the module at `path`."""
    with uncollected():  # trees stay: to look through them again and again takes as long as the parsing
        return list(ast.walk(tree_of(path)))


@cache
def imports_of(path: Path) -> list[tuple[ast.stmt, str]]:
    return list(imports(nodes_of(path)))


@cache
def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in nodes_of(path) if isinstance(node, FUNCTION)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def at_run_time(path: Path) -> list[ast.AST]:
    """The same without what stands in `if TYPE_CHECKING:` blocks, which never runs."""
    checks = [
        node
        for node in nodes_of(path)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    never = {id(inner) for check in checks for statement in check.body for inner in ast.walk(statement)}
    return [node for node in nodes_of(path) if id(node) not in never]


def room_of(module: str) -> str | None:
    """The room of a module: a folder directly in `tools/`, or another top-level folder; None: it is in none."""
    parts = module.split(".")
    if parts[0] != "tunesmith" or len(parts) < 2:
        return None
    return "/".join(parts[1:3]) if parts[1] == "tools" else parts[1]


@pytest.mark.heavy
def test_imports_go_downward_from_room_to_room() -> None:
    wrong = []
    for path in sources():
        own = room_of(module_of(path))
        for node, name in imports_of(path):
            room = room_of(name)
            above = room in ROOMS and own in ROOMS and ROOMS.index(room) > ROOMS.index(own)
            if name.split(".")[0] == "tests" or above:
                wrong.append(f"{name_of(path)}:{node.lineno} imports {name}{', from above' if above else ''}")
    assert not wrong, "\n".join(wrong)


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module_of(path)) for path in sources() if name_of(path) != "tools/__init__.py"} == set(ROOMS)


@pytest.mark.heavy
def test_the_rooms_are_few_and_loosely_joined() -> None:
    arrows = {(room_of(module_of(path)), room_of(name)) for path in sources() for _, name in imports_of(path)}
    between = [(one, other) for one, other in arrows if one != other and other in ROOMS]
    assert len(between) <= MOST_ARROWS


@pytest.mark.heavy
def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {module_of(path): path for path in sources()}
    arrows = {module: targets(at_run_time(path), modules) - {module} for module, path in modules.items()}
    left = dict(arrows)
    while ends := [module for module, needed in left.items() if not needed & left.keys()]:
        for module in ends:
            del left[module]
    assert not left, f"in a circle, or above one: {sorted(left)}"


@pytest.mark.heavy
def test_heavy_libraries_are_imported_only_at_work_and_only_inside_functions() -> None:
    wrong = []
    for path in (path for path in sources() if name_of(path) not in INSIDE_VLLM):
        nodes = at_run_time(path)
        at_work = name_of(path) in AT_WORK or path.stem.endswith("_job")
        heavy = [(node, name) for node, name in imports(nodes) if name.split(".")[0] in HEAVY]
        functions = functions_of(path) if heavy else []
        inside = {id(node) for function in functions for node in ast.walk(function)}
        for node, name in heavy:
            if name.split(".")[0] == "vllm":
                wrong.append(f"{name_of(path)}:{node.lineno}: vLLM lives in an environment of its own")
            elif not at_work or id(node) not in inside:
                wrong.append(f"{name_of(path)}:{node.lineno} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_stay_short() -> None:
    wrong = []
    for path in sources():
        if len(path.read_text().splitlines()) > FILE_LINES:
            wrong.append(f"{name_of(path)} wants another shape")
        for node in functions_of(path):
            if (lines := length(node)) > FUNCTION_LINES:
                wrong.append(f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines")
    assert not wrong, "\n".join(wrong)


def code_lines(path: Path) -> list[str]:
    """A module without blanks, comments and docstrings."""
    texts = (node.body for node in nodes_of(path) if isinstance(getattr(node, "body", None), list))
    alone = [one for body in texts for one in body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)]
    told = {line for one in alone if isinstance(one.value.value, str) for line in range(one.lineno, one.end_lineno + 1)}
    lines = enumerate(path.read_text().splitlines(), 1)
    return [line for number, line in lines if line.strip() and line.lstrip()[0] != "#" and number not in told]


def test_code_without_docstrings_comments_and_blanks_is_counted(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    told = '"""What\nit is."""\n\nX = 1\n"""Why."""\n# so\ndef f():\n    """Two\n    lines."""\n'
    module.write_text(told + '    return X or """a\nb"""\n')
    assert code_lines(module) == ["X = 1", "def f():", '    return X or """a', 'b"""']


@pytest.mark.heavy
def test_the_product_grows_no_heavier() -> None:
    code = [line for path in sources() for line in code_lines(path)]
    assert len(code) <= CODE_LINES
    assert sum(map(len, code)) / len(code) <= MEAN_LINE_CHARACTERS
    yaml_files = (path for top in ("agent", "prompts") for path in (ROOT / top).rglob("*.yaml"))
    assert sum(len(path.read_text().splitlines()) for path in yaml_files) <= YAML_LINES


def test_the_rooms_of_the_conversation_keep_their_budgets() -> None:
    rooms = {room: [path for path in sources() if name_of(path).startswith(f"{room}/")] for room in ROOM_LINES}
    lines = {room: sum(len(code_lines(path)) for path in paths) for room, paths in rooms.items()}
    assert not {room: number for room, number in lines.items() if number > ROOM_LINES[room]}


def test_no_code_reads_the_users_words_beside_a_model() -> None:
    """The words of a sentence are interpreted by the fallback alone."""
    outside = [path for path in sources() if not name_of(path).startswith("agent/words/")]
    readers = {
        name_of(path)
        for path in outside
        for _, name in imports(at_run_time(path))
        if name.startswith("tunesmith.agent.words")
    }
    assert readers == READS_WORDS


def test_the_usual_function_is_short() -> None:
    lines = sorted(length(node) for path in sources() for node in functions_of(path))
    assert lines[len(lines) // 2] <= MEDIAN_FUNCTION_LINES


def test_public_things_promise_something_and_say_what_they_return() -> None:
    wrong = []
    for path in sources():
        tree = tree_of(path)
        if not ast.get_docstring(tree) and path.read_text().strip():
            wrong.append(f"{name_of(path)} has no docstring")
        for holder in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]:
            for node in holder.body:
                if isinstance(node, FUNCTION) and not node.name.startswith("_") and node.returns is None:
                    wrong.append(f"{name_of(path)}:{node.lineno} {node.name} says not what it returns")
    assert not wrong, "\n".join(wrong)


def test_only_the_settings_read_the_environment() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno} reads the environment"
        for path in sources()
        if name_of(path) not in STANDALONE | READS_ENVIRONMENT
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    ]
    assert not wrong, "\n".join(wrong)


def test_templates_are_rendered_in_a_sandbox_or_are_our_own() -> None:
    """A stranger's text in any other environment is a stranger's code."""
    wrong = [
        f"{name_of(path)}:{found}"
        for path in sources()
        for found in unsafe_jinja(nodes_of(path), JINJA.get(name_of(path)))
    ]
    assert not wrong, "\n".join(wrong)


def unsafe_jinja(nodes: Sequence[ast.AST], allowed: str | None) -> Iterator[str]:
    """What a module does with Jinja beside its one allowed environment."""
    for node, name in imports(nodes):
        if name.split(".")[0] == "jinja2":
            other = name.endswith("Environment") and name != allowed
            if other or not allowed or isinstance(node, ast.Import):
                yield f"{node.lineno}: imports {name}"
    for node in nodes:
        if isinstance(node, ast.Attribute):
            if node.attr in ("overlay", "compile_expression") or (node.attr == "from_string" and not allowed):
                yield f"{node.lineno}: uses {node.attr}"
        elif allowed and isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            escapes = any(k.arg == "autoescape" and getattr(k.value, "value", None) is True for k in node.keywords)
            if node.func.id == "Template" or (node.func.id == "Environment" and not escapes):
                yield f"{node.lineno}: calls {node.func.id}"


@table(
    ("source", "allowed"),
    [
        ("import jinja2", None),
        ("import jinja2", SANDBOX),
        ("from jinja2 import Environment", SANDBOX),
        ("from jinja2.nativetypes import NativeEnvironment", SANDBOX),
        ("from jinja2.sandbox import SandboxedEnvironment as Safe", ESCAPING),
        ("def f():\n    from jinja2 import Environment\n    Environment(trim_blocks=True).from_string('')", ESCAPING),
        ("from jinja2 import Template\nTemplate('x')", SANDBOX),
        ("sandbox().overlay()", SANDBOX),
        ("environment().from_string(text)", None),
    ],
)
def test_an_unsafe_use_of_jinja_is_noticed(source: str, allowed: str | None) -> None:
    assert list(unsafe_jinja([*ast.walk(ast.parse(source))], allowed))


@pytest.mark.heavy
def test_the_light_side_loads_nothing_heavy() -> None:
    elsewhere = STANDALONE | INSIDE_VLLM
    modules = [module_of(path) for path in sources() if name_of(path) not in elsewhere and path.name != "__main__.py"]
    script = f"""
import gc, importlib, sys
gc.disable()
for name in {modules!r}:
    importlib.import_module(name)
from tunesmith.tools.pipeline import catalog
for entry in catalog.STAGES:
    entry.load()
print(*sorted(set({(*HEAVY, "scipy")!r}) & {{name.partition('.')[0] for name in sys.modules}}))
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


def test_the_demo_is_data() -> None:
    """What the bundled behaviour is about stands in `prompts/demo`; no line of Python knows it."""
    noun, act = yaml.safe_load((ROOT / "prompts" / "demo" / "behaviour.yaml").read_text())["name"].split("-")
    known = rf"\b{noun}|{act[:-1]}"
    knowing = [name_of(path) for path in sources() if re.search(known, path.read_text(), re.IGNORECASE)]
    assert knowing == []
