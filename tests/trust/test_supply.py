"""What is installed: by the version and the hash that a lock file says, where there is one for the machine."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.fixtures.tables import table
from tests.tools.machine.test_bootstrap import wheel
from tunesmith.tools.machine import bootstrap, environments, locks
from tunesmith.tools.machine.environments import Builder, Environment, SetupError

LOCKS = sorted(locks.FOLDER.glob("*.txt"))
DECLARED = bootstrap.declaration(bootstrap.ROOT / "pyproject.toml")


def test_both_environments_have_a_lock_for_what_they_require_now() -> None:
    lab = locks.lab_required(DECLARED)
    wanted = {"lab-cpu": lab, "serve-cpu": bootstrap.SERVE_CPU, "lab-cuda": lab, "serve-cuda": bootstrap.SERVE_CUDA}
    assert {path.stem for path in LOCKS} == set(wanted)
    for name, required in wanted.items():
        first = (locks.FOLDER / f"{name}.txt").read_text().split("\n", 1)[0]
        assert first == f"# for {locks.digest(required)}", "what is required has changed: `make locks`"


@table("path", LOCKS)
def test_a_lock_names_every_package_once_by_version_and_hash(path: Path) -> None:
    text = path.read_text().split("\n", 1)[1].replace("\\\n", " ").replace(locks._DEV, "", 1)
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines:
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+]+ +(--hash=sha256:[0-9a-f]{64} *)+", line), line[:200]
    names = [re.split(r"\[|==", line)[0] for line in lines]
    assert len(names) == len(set(names)) > 100
    if path.stem.endswith("-cpu"):
        assert not {name for name in names if name.startswith(("torch", "nvidia-cu"))}, (
            "those come by their exact version"
        )
    else:
        assert {"torch", "nvidia-cublas"} <= set(names), "with CUDA torch comes from PyPI, by its hash too"


@pytest.mark.parametrize("path", [path for path in LOCKS if path.stem.startswith("lab")], ids=lambda path: path.stem)
def test_a_wheels_set_up_takes_nothing_of_development(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_of_this_machine", lambda name: path)
    whole, released = (set(locks._NAME.findall(text)) for text in (path.read_text(), locks.lock_of_release(path.stem)))
    assert {"ray", "grpcio", "pytest", "iniconfig", "mcp", "mypy"} <= whole - released
    assert {"peft", "transformers", "setuptools", "pip", "pydantic-ai-slim"} <= released


def test_what_trains_and_what_serves_are_of_one_torch_vllm_and_transformers_with_and_without_cuda() -> None:
    of_cpu = "\n".join(locks.TORCH).replace("+cpu", "")
    texts = {path.stem: path.read_text() + (of_cpu if path.stem.endswith("-cpu") else "") for path in LOCKS}
    found = {
        name: {match[1] for text in texts.values() if (match := re.search(rf"^{name}==(\S+)", text, re.MULTILINE))}
        for name in ("transformers", "torch", "torchvision", "vllm(?:-cpu)?")
    }
    assert {name: len(versions) for name, versions in found.items()} == dict.fromkeys(found, 1)
    assert found["transformers"] == {bootstrap.TRANSFORMERS.partition("==")[2]}
    assert found["vllm(?:-cpu)?"] == {bootstrap.VLLM_VERSION}
    assert SpecifierSet(locks.lab_torch(DECLARED).removeprefix("torch")).contains(*found["torch"])


def test_a_lock_is_for_one_kind_of_machine_and_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks.sys, "platform", "linux")
    monkeypatch.setattr(locks.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(locks.sys, "version_info", (3, 11, 7))
    assert locks.lock_for("serve-cpu", bootstrap.SERVE_CPU)
    assert locks.lock_for("serve-cpu", [*bootstrap.SERVE_CPU, "more"]) == ""
    assert locks.lock_for("serve-cuda", bootstrap.SERVE_CPU) == ""
    monkeypatch.setattr(locks.sys, "version_info", (3, 12, 1))
    assert locks.lock_for("serve-cpu", bootstrap.SERVE_CPU) == ""
    lab, serve = bootstrap.planned(bootstrap.ROOT, cuda=False)
    assert (lab.lock, serve.lock) == ("", ""), "set up by ranges, as before"


def test_what_is_left_out_of_a_lock_is_left_out_with_its_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "FOLDER", tmp_path)
    monkeypatch.setattr(locks.sys, "version_info", (3, 11, 7))
    (tmp_path / "one.txt").write_text(
        f"# for {locks.digest(['a'])}\na==1 \\\n    --hash=sha256:1\nb[c]==2 \\\n    --hash=sha256:2 \\\n"
        "    --hash=sha256:3\nd==4\n"
    )
    kept = "a==1 \\\n    --hash=sha256:1\nd==4\n"
    assert locks.lock_for("one", ["a"], left_out=("b",)).partition("\n")[2] == kept


def test_pip_is_told_to_ask_for_hashes_and_to_add_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(Builder, "run", lambda self, *command: ran.append(command))
    monkeypatch.setattr(Builder, "resolved", lambda self, requirement, *index: requirement.partition("==")[2])
    for env in bootstrap.planned(bootstrap.ROOT, cuda=False):
        if not env.lock:
            pytest.skip("no lock for this machine")
        builder = Builder(replace(env, folder=tmp_path), {})
        builder.install_locked(env.lock, builder.cpu_index_arguments())
    pips = [command for command in ran if "pip" in command]
    assert len(pips) == 5 and all("--no-deps" in command for command in pips)
    assert ["--require-hashes" in command for command in pips] == [True, False, False, True, False]


@pytest.mark.slow
@pytest.mark.heavy
def test_a_file_with_another_hash_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    made, _ = wheel(links, "thing", "1.0"), wheel(links, "torch", "2.13.0+cpu")
    env = Environment(tmp_path / ".venv", ("thing", "unhashed"), cpu_builds=("torch==2.13.0+cpu",))
    env = replace(env, lock=f"# for x\nthing==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SetupError, match=r"(?i)hash"):
        environments.run_side_by_side([env])
    assert not env.ready() and not [*env.folder.rglob("thing.py")]

    env = replace(env, lock=f"# for x\nthing==1.0 --hash=sha256:{hashlib.sha256(made.read_bytes()).hexdigest()}\n")
    environments.run_side_by_side([env])
    listed = subprocess.run([env.python, "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert env.ready() and "thing" in listed and "2.13.0+cpu" in listed and "unhashed" not in listed
    assert env.recipe_hash() != replace(env, lock="").recipe_hash()
