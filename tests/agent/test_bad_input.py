"""Bad input: exit 2, one clear line, and nothing was started."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures import warm
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store

pytestmark = pytest.mark.heavy

TEBIBYTE = 1 << 40


def tunesmith(home: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return warm.run(args, {**os.environ, "TUNESMITH_HOME": str(home), **env})


def not_a_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("no model here")
    return folder


def pickle_only(folder: Path) -> Path:
    make_tiny_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    return folder


def too_large(folder: Path) -> Path:
    return make_tiny_model(folder, weight_bytes=TEBIBYTE)


def with_code(folder: Path) -> Path:
    return make_tiny_model(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})


@table(
    ("make", "told"),
    [
        (not_a_model, "config.json"),
        (with_code, "auto_map"),
        (pickle_only, "safetensors"),
        (too_large, "iB of disk"),
    ],
)
def test_a_folder_that_cannot_be_a_base_is_refused(tmp_path: Path, make: Callable[[Path], Path], told: str) -> None:
    refused_before_anything(tmp_path, told, "base", "--model", str(make(tmp_path / "model")), "--yes")


def refused_before_anything(tmp_path: Path, told: str, *args: str, **env: str) -> None:
    home = tmp_path / "home"
    done = tunesmith(home, *args, **env)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("tunesmith: ") and told in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    if (home / "tunesmith.db").exists():
        assert [step for step in Store(home).steps() if step.status != "done"] == []


@pytest.fixture
def home_with_base(based: Path, tmp_path: Path) -> Path:
    """A home whose newest run has a base, and the model that it was copied from."""
    shutil.copytree(based, tmp_path, dirs_exist_ok=True)
    return tmp_path


SUITES = {
    "broken": ("tests: [", "yaml"),
    "code": ("prompts: ['{{q}}']\ntests: [{vars: {q: x}, assert: [{type: javascript, value: 'true'}]}]", "javascript"),
    "python": ("prompts: ['{{q}}']\ntests: [{vars: {q: x}, assert: [{type: python, value: 'file://x.py'}]}]", "python"),
    "environment": ("prompts: ['{{env.HOME}}']\ntests: [{vars: {q: x}, assert: [{type: equals, value: x}]}]", "env"),
}


@pytest.mark.parametrize("name", SUITES)
def test_a_broken_or_code_bearing_suite_is_refused(home_with_base: Path, name: str) -> None:
    text, told = SUITES[name]
    suite = home_with_base / "suite.yaml"
    suite.write_text(text)
    refused_before_anything(home_with_base, told, "baseline", "--suites", str(suite), "--yes")


def test_an_unknown_field_is_refused_by_flag_and_by_file(home_with_base: Path) -> None:
    request = home_with_base / "request.json"
    request.write_text(json.dumps({"lora_rnk": 8}))
    refused_before_anything(home_with_base, "lora_rank", "train", "--request", str(request), "--yes")
    refused_before_anything(home_with_base, "lora_rank", "train", "--lora_rnk", "8", "--yes")


@table("given", [["--model", "bundled"], ["--lora_rnk", "8"], ["--request", "fields.json"], ["stray"]])
def test_no_field_is_taken_beside_a_yes_to_a_plan(tmp_path: Path, given: list[str]) -> None:
    home, model = tmp_path / "home", make_tiny_model(tmp_path / "model")
    shown = tunesmith(home, "base", "--model", str(model), "--json")
    plan_hash = json.loads(shown.stdout)["plan_hash"]
    done = tunesmith(home, "base", "--approve", plan_hash[:12], *given)
    assert done.returncode == 2 and given[0] in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert [step.status for step in Store(home).priced_steps()] == ["planned"]


def test_no_vllm_is_one_clear_line(home_with_base: Path) -> None:
    refused_before_anything(
        home_with_base, "vLLM", "baseline", "--yes", TUNESMITH_VLLM="/nowhere/vllm", PATH="/usr/bin:/bin"
    )


def test_a_port_in_use_is_refused(home_with_base: Path) -> None:
    store = Store(home_with_base / "home")
    run = store.runs()[0].id
    step = store.steps(run)[0].id
    store.add_artifact(
        Artifact("", run, step, "quantized", home_with_base / "model", "0" * 64, 64, meta={"parameters": 32})
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused_before_anything(home_with_base, f"port {port}", "deploy", "--port", port, "--yes")


def test_a_step_before_what_it_needs_is_refused_with_the_stage_that_makes_it(home_with_base: Path) -> None:
    refused_before_anything(home_with_base, "tunesmith train", "merge", "--yes")


def test_a_model_that_was_not_evaluated_is_not_deployed(home_with_base: Path) -> None:
    refused_before_anything(home_with_base, "tunesmith train", "deploy", "--arm", "adapter", "--yes")
    store = Store(home_with_base / "home")
    run = store.runs()[0].id
    made = Artifact("", run, store.steps(run)[0].id, "adapter", home_with_base / "model", "0" * 64, 64)
    store.add_artifact(made)
    done = tunesmith(home_with_base / "home", "deploy", "--arm", "adapter", "--yes")
    assert done.returncode == 4 and "no finished evaluation" in done.stderr


@table("model", ["no/such/folder/at/all", "org/name", "./nowhere"])
def test_a_model_that_is_nowhere_is_named(tmp_path: Path, model: str) -> None:
    refused_before_anything(tmp_path, model.rsplit("/", 1)[-1], "base", "--model", model, "--yes")
