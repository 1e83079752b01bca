"""98 attacks by paths: suites, model folders, judges, behaviours and plans read nothing from outside, and end soon."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.behaviour import behaviour_folder, load_behaviour, load_rehearsal
from tunesmith.tools.evaluation.judge import find_judge
from tunesmith.tools.models.folder import check_model_folder
from tunesmith.tools.models.tensor_file import INDEX_NAME
from tunesmith.tools.pipeline.plan_file import load_pipeline
from tunesmith.tools.suites.loading import load_suites

SECRET = "the-secret-of-somebody-else"

# Where a suite may name a file → the suite, X being the name, and what would be read from it.
HEAD = "prompts: ['{{q}}']\n"
PLACES = {
    "tests": (HEAD + "tests: 'X'\n", "yaml", f"- vars: {{q: {SECRET}}}\n"),
    "tests in a list": (HEAD + "tests: ['file://X']\n", "yaml", f"- vars: {{q: {SECRET}}}\n"),
    "a table": (HEAD + "tests: 'X'\n", "csv", f"q\n{SECRET}\n"),
    "a prompt": ("prompts: ['file://X']\ntests: [{vars: {q: a}}]\n", "txt", SECRET),
    "a var": (HEAD + "tests: [{vars: {q: 'file://X'}}]\n", "txt", SECRET),
    "vars": (HEAD + "tests: [{vars: 'file://X'}]\n", "yaml", f"q: {SECRET}\n"),
    "a default": (HEAD + "defaultTest: 'file://X'\ntests: [{}]\n", "yaml", f"vars: {{q: {SECRET}}}\n"),
    "a value": (HEAD + "tests: [{vars: {q: a}, assert: [{type: contains, value: 'file://X'}]}]\n", "txt", SECRET),
    "a scenario": (HEAD + "scenarios: ['file://X']\n", "yaml", f"- config: [{{vars: {{q: {SECRET}}}}}]\n  tests: []\n"),
}  # fmt: skip
FORMS = ("../outside.E", "A/outside.E", "link.E", "linked/outside.E", "sub/../../outside.E", "../out*.E")
SUITES = [(place, form) for place in PLACES for form in FORMS]
ALONE = ["file://~root/outside.yaml", "a\0b.yaml", "https://evil.example/outside.yaml"]


def refused(read: Callable[[], object]) -> None:
    """It ends in one line that says nothing of what lies outside; how soon, `bench/limits.py` says."""
    with pytest.raises(BadInput) as error:
        read()
    assert SECRET not in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 6000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "suite"
    (made / "sub").mkdir(parents=True)
    (made / "linked").symlink_to(tmp_path)
    for kind in ("yaml", "csv", "txt"):
        (made / f"link.{kind}").symlink_to(tmp_path / f"outside.{kind}")
    return made


@pytest.mark.parametrize(("place", "form"), SUITES)
def test_a_suite_reads_nothing_outside_its_folder(folder: Path, place: str, form: str) -> None:
    text, kind, content = PLACES[place]
    outside = folder.parent / f"outside.{kind}"
    outside.write_text(content)
    name = form.replace(".E", f".{kind}").replace("A/", f"{folder.parent}/")
    (folder / "suite.yaml").write_text(text.replace("X", name))
    refused(lambda: load_suites([folder / "suite.yaml"], models=("judge", "embedder")))
    shutil.copy(outside, folder / f"beside.{kind}")
    (folder / "suite.yaml").write_text(text.replace("X", f"beside.{kind}"))
    assert SECRET in str(load_suites([folder / "suite.yaml"]).cases), "the same from inside is a suite"


@pytest.mark.parametrize("name", ALONE)
def test_a_suite_reads_no_other_name(folder: Path, name: str) -> None:
    (folder / "suite.yaml").write_text(HEAD + "tests: " + json.dumps(name) + "\n")
    refused(lambda: load_suites([folder / "suite.yaml"]))


def _index(*names: object) -> Callable[[Path], object]:
    text = json.dumps({"weight_map": {f"t{number}": name for number, name in enumerate(names)}})
    return lambda model: (model / INDEX_NAME).write_text(text)


def _write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda model: ((model / name).unlink(missing_ok=True), (model / name).write_bytes(data))


def _link(name: str, target: str) -> Callable[[Path], object]:
    return lambda model: ((model / name).unlink(missing_ok=True), (model / name).symlink_to(target))


def _pipe(name: str) -> Callable[[Path], object]:
    return lambda model: ((model / name).unlink(missing_ok=True), os.mkfifo(model / name))


MODELS: dict[str, Callable[[Path], object]] = {
    "a shard above": _index("../evil/model.safetensors"), "a shard elsewhere": _index("/evil/model.safetensors"),
    "a shard below": _index("sub/model.safetensors"), "a shard of another kind": _index("model.bin"),
    "a shard that is no name": _index(5), "a shard without a name": _index(""), "a shard with a NUL": _index("a\0b"),
    "a shard that is not there": _index("model.safetensors", "more.safetensors"),
    "an index that is a list": _write(INDEX_NAME, '{"weight_map": []}'),
    "an adapter on top": _write("adapter_config.json", '{"base_model_name_or_path": "/evil"}'),
    "code": _write("config.json", '{"model_type": "llama", "auto_map": {"AutoModel": "evil.py"}}'),
    "code deep in a tokenizer": _write("tokenizer_config.json", '{"a": [{"b": {"auto_map": {}}}]}'),
    "a header of 4 GiB": _write("model.safetensors", struct.pack("<Q", 1 << 32)),
    "a header of all there is": _write("model.safetensors", struct.pack("<Q", (1 << 64) - 1)),
    "a header that is no JSON": _write("model.safetensors", struct.pack("<Q", 8) + b"{{{{{{{{"),
    "a config that is a pipe": _pipe("config.json"), "a config without end": _link("config.json", "/dev/zero"),
    "weights that are a pipe": _pipe("model.safetensors"),
}  # fmt: skip


@table("name", MODELS)
def test_a_model_is_what_lies_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "evil").mkdir()
    model = make_tiny_model(tmp_path / "model")
    check_model_folder(model)
    MODELS[name](model)
    refused(lambda: check_model_folder(model))


JUDGES = ["http://evil.example/v1", "https://127.0.0.1:9", "../evil", "a\0b", "/dev/zero", "~nobody-of-this-name/x"]


@table("name", JUDGES)
def test_a_judge_is_no_address_and_no_file_that_settings_do_not_name(tmp_path: Path, name: str) -> None:
    refused(lambda: find_judge(name, tmp_path))


BEHAVIOURS = {
    "a link to a file": _link("behaviour.yaml", "../outside.yaml"),
    "a link to itself": _link("behaviour.yaml", "behaviour.yaml"),
    "the environment": _link("rehearsal.txt", "/proc/self/environ"),
    "a link beside": _link("rehearsal.txt", "behaviour.yaml"),
    "prompts above": _link("rehearsal.txt", "../outside.yaml"),
    "prompts without end": _link("rehearsal.txt", "/dev/zero"),
    "a pipe": _pipe("behaviour.yaml"), "a pipe of prompts": _pipe("rehearsal.txt"),
    "zeros": _link("behaviour.yaml", "/dev/zero"), "nothing": _write("behaviour.yaml", b""),
    "bytes": _write("behaviour.yaml", b"\xff\xfe\0"), "prompts that are bytes": _write("rehearsal.txt", b"\xff\xfe\0"),
}  # fmt: skip


@table("name", BEHAVIOURS)
def test_a_behaviour_reads_nothing_but_its_plain_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.yaml").write_text(f"name: {SECRET}\n")
    folder = tmp_path / "b"
    shutil.copytree(behaviour_folder("demo"), folder)
    BEHAVIOURS[name](folder)
    refused(lambda: (load_behaviour(str(folder)), load_rehearsal(str(folder))))


PLANS: dict[str, Callable[[Path], object]] = {
    "a pipe": _pipe("plan.yaml"), "zeros": _link("plan.yaml", "/dev/zero"),
    "a link to itself": _link("plan.yaml", "plan.yaml"),
    "a folder": lambda folder: (folder / "plan.yaml").mkdir(), "bytes": _write("plan.yaml", b"\xff\xfe\0"),
}  # fmt: skip


@table("name", PLANS)
def test_a_plan_is_a_plain_file(tmp_path: Path, name: str) -> None:
    PLANS[name](tmp_path)
    refused(lambda: load_pipeline(tmp_path / "plan.yaml"))


def test_there_are_98_attacks() -> None:
    assert (len(SUITES) + len(ALONE), len(MODELS), len(JUDGES), len(BEHAVIOURS), len(PLANS)) == (57, 18, 6, 12, 5)
