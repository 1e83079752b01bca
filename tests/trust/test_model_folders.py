"""What a stranger's model folder can do: nothing of its user's files is copied, and no look at it takes long."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.confined import OverLimits
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.models import folder as looking
from tunesmith.tools.models import model_files
from tunesmith.tools.models.base_job import folder_digest, materialize_folder
from tunesmith.tools.models.find import find_model
from tunesmith.tools.models.folder import check_model_folder, fingerprint
from tunesmith.tools.models.model_files import drop_odd_texts, is_wanted, wanted_files

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"
COMMIT, BLOB = "0123456789abcdef" * 2 + "01234567", "ab" * 32


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "id_rsa").write_text(SECRET)
    return make_tiny_model(tmp_path / "model", weight_bytes=4096)


def copied(model: Path, tmp_path: Path) -> dict[str, bytes]:
    """What lands in the copy."""
    out = tmp_path / "out"
    materialize_folder(model, out, quiet)
    drop_odd_texts(out)
    return {file.name: file.read_bytes() for file in out.iterdir()}


def link(name: str, target: str) -> Callable[[Path], object]:
    return lambda model: ((model / name).unlink(missing_ok=True), (model / name).symlink_to(target))


def pipe(model: Path) -> None:
    os.mkfifo(model / "NOTICE")


def listener(model: Path) -> None:
    here = Path.cwd()
    os.chdir(model)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind("LICENSE")
    finally:
        os.chdir(here)


def through_a_second_link(model: Path) -> None:
    (model / "LICENSE").symlink_to("terms")
    (model / "terms").symlink_to("../private/id_rsa")


def through_a_folder(model: Path) -> None:
    (model / "sub").symlink_to("../private")
    (model / "LICENSE").symlink_to("sub/id_rsa")


OUTSIDE: dict[str, Callable[[Path], object]] = {
    "a licence": link("LICENSE", "../private/id_rsa"),
    "a card": link("README.md", "../private/id_rsa"),
    "an absolute link": lambda model: (model / "NOTICE").symlink_to(model.parent / "private" / "id_rsa"),
    "a tokenizer": link("tokenizer.json", "../private/id_rsa"),
    "a config": link("config.json", "../private/id_rsa"),
    "a shard": link("more.safetensors", "../private/id_rsa"),
    "a link to a link": through_a_second_link,
    "a link through a folder": through_a_folder,
    "the environment": link("LICENSE", "/proc/self/environ"),
    "zeros without end": link("LICENSE", "/dev/zero"),
    "a link to itself": link("LICENSE", "LICENSE"),
    "a link to nothing": link("LICENSE", "nowhere"),
    "the folder above": link("LICENSE", ".."),
    "a blob where there is no cache": link("LICENSE", f"../../blobs/{BLOB}"),
    "a pipe": pipe,
    "a socket": listener,
    "a folder": lambda model: (model / "LICENSE").mkdir(),
}


@pytest.mark.parametrize("attack", OUTSIDE)
def test_what_leaves_the_folder_is_refused_and_nothing_is_copied(model: Path, tmp_path: Path, attack: str) -> None:
    OUTSIDE[attack](model)
    for look in (check_model_folder, folder_digest, lambda model: copied(model, tmp_path)):
        with pytest.raises(BadInput) as error:
            look(model)
        assert SECRET not in str(error.value) and len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_a_private_file_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    (model / "LICENSE").symlink_to("../private/id_rsa")
    tunesmith = Tunesmith(tmp_path / "home")
    done = tunesmith("base", "--model", str(model), "--yes")
    assert done.returncode == 2 and "is a link that leaves its folder" in done.stderr, done.stderr
    assert not list((tmp_path / "home").glob("models/*")) and "else remove the link" in done.stderr


def test_only_the_files_of_a_list_are_copied(model: Path, tmp_path: Path) -> None:
    for name in (
        "vocab.secret",
        "tokenizer.ssh",
        "LICENSE.key",
        "id.json",
        "x.jinja",
        "a b.safetensors",
        ".x.safetensors",
    ):
        (model / name).write_text("{}")
    (model / "other.jinja").symlink_to("../private/id_rsa")
    (model / "LICENSE").write_text("Do what you like.\n")
    assert copied(model, tmp_path).keys() == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors", "LICENSE",
    }  # fmt: skip


def test_a_merged_model_takes_no_more_of_its_base_than_the_list(model: Path, tmp_path: Path) -> None:
    for name in ("vocab.secret", "tokenizer.ssh", "README.md", "LICENSE"):  # as an earlier version copied them
        (model / name).write_text("x")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "LICENSE").write_text("half of")
    model_files.copy_beside_weights(model, tmp_path / "merged")
    assert {file.name for file in (tmp_path / "merged").iterdir()} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE",
    }  # fmt: skip
    assert (tmp_path / "merged" / "LICENSE").read_text() == "x"


@pytest.mark.parametrize("content", [b"\xff\xfe\0l", b"MIT\0", b"\x1b]0;evil\x07", b"a" * ((1 << 20) + 1)])
def test_a_licence_that_is_no_plain_text_is_left_out(model: Path, tmp_path: Path, content: bytes) -> None:
    (model / "LICENSE").write_bytes(content)
    (model / "NOTICE").write_text("©\r\n\tTerms\f\n")
    found = copied(model, tmp_path)
    assert "LICENSE" not in found and "NOTICE" in found


def test_links_within_the_folder_and_hard_links_are_files(model: Path, tmp_path: Path) -> None:
    (model / "real").write_text("Do what you like.\n")
    (model / "LICENSE").symlink_to("real")
    os.link(model / "real", model / "NOTICE")
    found = copied(model, tmp_path)
    assert found["LICENSE"] == found["NOTICE"] == b"Do what you like.\n"
    assert not (tmp_path / "out" / "LICENSE").is_symlink() and (tmp_path / "out" / "NOTICE").stat().st_nlink == 1


@pytest.fixture
def snapshot(model: Path, tmp_path: Path) -> Path:
    """A model as the hub's own cache keeps it: links into the blobs of its repository."""
    repository = tmp_path / "hub" / "models--org--tiny"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        blob = f"{number:040x}"
        file.rename(repository / "blobs" / blob)
        (folder / file.name).symlink_to(f"../../blobs/{blob}")
    return folder


def test_a_snapshot_of_the_hubs_cache_is_copied(snapshot: Path, tmp_path: Path) -> None:
    expected = {file.name: file.read_bytes() for file in snapshot.iterdir()}
    before = fingerprint(snapshot)
    assert check_model_folder(snapshot).parameters == 2048 and copied(snapshot, tmp_path) == expected
    blob = (snapshot / "chat_template.jinja").resolve()
    blob.write_text("{{ 'other' }}")
    assert fingerprint(snapshot) != before


def test_a_snapshot_whose_blob_is_in_the_store_of_its_cache_is_copied(snapshot: Path, tmp_path: Path) -> None:
    """As huggingface_hub 1.33 keeps what several repositories hold."""
    blob = (snapshot / "model.safetensors").resolve()
    store = tmp_path / "hub" / "blobs" / BLOB[:2]
    store.mkdir(parents=True)
    expected = blob.read_bytes()
    blob.rename(store / BLOB)
    blob.symlink_to(f"../../blobs/{BLOB[:2]}/{BLOB}")
    assert copied(snapshot, tmp_path)["model.safetensors"] == expected


def blob_that_leaves(snapshot: Path, tmp_path: Path) -> None:
    blob = (snapshot / "config.json").resolve()
    blob.unlink()
    blob.symlink_to(tmp_path / "private" / "id_rsa")


def store_that_leaves(snapshot: Path, tmp_path: Path) -> None:
    blob = (snapshot / "config.json").resolve()
    blob.unlink()
    (tmp_path / "hub" / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "hub" / "blobs" / "ab" / BLOB).symlink_to(tmp_path / "private" / "id_rsa")
    blob.symlink_to(f"../../blobs/ab/{BLOB}")


def blobs_that_are_elsewhere(snapshot: Path, tmp_path: Path) -> None:
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")


def blob_of_another(snapshot: Path, tmp_path: Path) -> None:
    other = tmp_path / "hub" / "models--other--private" / "blobs"
    other.mkdir(parents=True)
    (other / BLOB).write_text(SECRET)
    (snapshot / "LICENSE").symlink_to(f"../../../models--other--private/blobs/{BLOB}")


def blob_by_another_name(snapshot: Path, tmp_path: Path) -> None:
    (snapshot.parent.parent / "blobs" / "token").write_text(SECRET)
    (snapshot / "LICENSE").symlink_to("../../blobs/token")


@pytest.mark.parametrize(
    "leave", [blob_that_leaves, store_that_leaves, blobs_that_are_elsewhere, blob_of_another, blob_by_another_name]
)
def test_a_snapshot_that_links_out_of_its_repository_is_refused(
    snapshot: Path, tmp_path: Path, leave: Callable[[Path, Path], None]
) -> None:
    leave(snapshot, tmp_path)
    with pytest.raises(BadInput):
        copied(snapshot, tmp_path)
    assert not (tmp_path / "out").exists()


def test_links_of_a_snapshot_are_followed_in_a_snapshot_alone(snapshot: Path, tmp_path: Path) -> None:
    elsewhere = snapshot.parent.rename(snapshot.parent.with_name("models")) / COMMIT
    assert (elsewhere / "config.json").is_file()
    with pytest.raises(BadInput, match="leaves its folder"):
        copied(elsewhere, tmp_path)


def test_a_file_that_becomes_a_link_after_the_look_is_not_followed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "LICENSE").write_text("Do what you like.\n")
    looked = model_files.wanted_files

    def swapped(folder: Path) -> dict[str, int]:
        found = looked(folder)
        (model / "LICENSE").unlink()
        (model / "LICENSE").symlink_to("../private/id_rsa")
        return found

    monkeypatch.setattr("tunesmith.tools.models.base_job.wanted_files", swapped)
    with pytest.raises(BadInput, match="leaves its folder"):
        copied(model, tmp_path)
    assert not any(SECRET in file.read_text() for file in (tmp_path / "out").glob("LICENSE*"))


def test_a_file_that_grows_while_it_is_copied_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = model_files.open_inside

    def growing(folder: Path, name: str) -> Any:
        file = opened(folder, name)
        monkeypatch.setattr(os, "fstat", lambda fd, stat=os.fstat: _shorter(stat(fd)))
        return file

    monkeypatch.setattr(model_files, "open_inside", growing)
    with pytest.raises(StepFailed, match="was changed while it was copied"):
        model_files.copy_inside(model, "model.safetensors", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size < (model / "model.safetensors").stat().st_size


def _shorter(stat: os.stat_result) -> os.stat_result:
    return os.stat_result([*stat[:6], stat[6] - 1, *stat[7:]])


def test_the_name_of_a_copy_is_that_of_the_bytes_in_it(model: Path, tmp_path: Path) -> None:
    (model / "LICENSE").write_bytes(b"\0")  # which is left out, and stays part of the name
    named = folder_digest(model)
    materialize_folder(model, tmp_path / "out", quiet, digest=named)
    (model / "chat_template.jinja").write_text("{{ 'other' }}")
    with pytest.raises(StepFailed, match="was changed while it was copied; start again"):
        materialize_folder(model, tmp_path / "again", quiet, digest=named)


def test_a_folder_of_a_million_files_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_MOST_FILES", 4)
    with pytest.raises(BadInput, match="holds more than 4 files; give the folder of one model"):
        check_model_folder(model)


def with_header(model: Path, header: bytes, tail: int = 0) -> Path:
    with (model / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + tail)
    return model


def entry(**changes: Any) -> bytes:
    return json.dumps({"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12], **changes}}).encode()


HEADERS = {
    "a product of 4,300-digit numbers": b'{"w":{"shape":[' + b"9" * 4300 + (b"," + b"9" * 4300) * 900 + b"]}}",
    "numbers of 21 digits": entry(shape=[10**20]),
    "more rows than there are bytes": entry(shape=[1 << 48]),
    "a shape below zero": entry(shape=[-2, -3]),
    "an offset below zero": entry(data_offsets=[-12, 0]),
    "offsets the wrong way": entry(data_offsets=[12, 0]),
    "three offsets": entry(data_offsets=[0, 6, 12]),
    "offsets that are text": entry(data_offsets="02"),
    "other bytes than its shape": entry(shape=[5]),
    "nine dimensions": entry(shape=[1] * 7 + [2, 3]),
    "a shape that is text": entry(shape="23"),
    "a shape of truths": entry(shape=[True, 6]),
    "a fraction of a row": entry(shape=[2.0, 3]),
    "an unknown type": entry(dtype="BF17"),
    "a type that is a list": entry(dtype=["BF16"]),
    "a name of a page": json.dumps({"w" * 600: json.loads(entry())["w"]}).encode(),
    "two tensors in one place": json.dumps({name: json.loads(entry())["w"] for name in "ab"}).encode(),
    "a gap": entry(data_offsets=[4, 12], shape=[4]),
    "something behind the tensors": entry(shape=[5], data_offsets=[0, 10]),
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_no_library_would_load_is_refused(model: Path, header: str) -> None:
    with_header(model, HEADERS[header], 12)
    with pytest.raises(BadInput, match=r"model\.safetensors.*copy or make it again") as error:
        check_model_folder(model)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("header", [name for name in HEADERS if name not in ("nine dimensions", "a name of a page")])
def test_the_library_refuses_them_too(model: Path, header: str) -> None:
    library = pytest.importorskip("safetensors")
    with_header(model, HEADERS[header], 12)
    with pytest.raises(Exception), library.safe_open(model / "model.safetensors", framework="np"):  # noqa: B017
        raise AssertionError("it was opened")


@pytest.mark.parametrize("tail", [4, 16])
def test_weights_of_another_length_than_their_header_says_are_refused(model: Path, tail: int) -> None:
    with pytest.raises(BadInput, match=r"of 12 bytes|cut short|goes on behind"):
        check_model_folder(with_header(model, entry(), tail))


def test_every_type_of_the_library_is_known(model: Path) -> None:
    pytest.importorskip("safetensors")
    kinds = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
             "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64,
             "I64": 64, "U64": 64}  # fmt: skip
    at, header = 0, {}
    for kind, bits in kinds.items():
        header[kind] = {"dtype": kind, "shape": [2, 4], "data_offsets": [at, at + bits]}
        at += bits
    assert check_model_folder(with_header(model, json.dumps(header).encode(), at)).parameters == 8 * len(kinds)


def test_a_header_over_16_mb_is_not_read(model: Path) -> None:
    with pytest.raises(BadInput, match="16 MB may be its header"):
        check_model_folder(with_header(model, b" " * ((16 << 20) + 1)))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda model: with_header(model, b'{"w":[' + b"[]," * 2_000_000 + b"0]}"), "no safetensors header"),
        (lambda model: (model / "more.json").write_bytes(b"[" + b"[]," * 2_000_000 + b"0]"), ""),
    ],
)
def test_what_is_long_to_parse_is_parsed_elsewhere(
    model: Path, write: Callable[[Path], object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model)
    asked = list[str]()

    def elsewhere(*arguments: Any) -> Any:
        asked.append(arguments[2])
        return real(*arguments)

    real = looking.confined_answer
    monkeypatch.setattr(looking, "confined_answer", elsewhere)
    if told:
        with pytest.raises(BadInput, match=told):
            check_model_folder(model)
    else:
        assert check_model_folder(model).parameters == 2048
    assert asked == [f"the model in {model}"]


def test_what_is_too_long_for_there_too_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_LIMITS", looking.Limits(memory_bytes=96 << 20))
    with_header(model, b'{"w":[' + b"[]," * 2_000_000 + b"0]}")
    with pytest.raises(OverLimits, match=f"the model in {model} took more than"):
        check_model_folder(model)


def test_small_files_of_one_look_are_counted_together(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (model / f"more-{number}.json").write_bytes(b"[" + b"1," * 250_000 + b"0]")
    monkeypatch.setattr(looking, "confined_answer", lambda *_: pytest.fail("elsewhere"))
    with pytest.raises(pytest.fail.Exception, match="elsewhere"):
        check_model_folder(model)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_hidden_layers": 10**18, "num_experts": 8}, {"text_config": {"num_hidden_layers": -1}},
        {"hidden_size": 1e308}, {"hidden_size": -5}, {"hidden_size": 10**19}, {"num_attention_heads": 0},
        {"vocab_size": float("inf")}, {"intermediate_size": -1}, {"num_experts": 1 << 40},
        {"num_experts": 8, "first_k_dense_replace": -(1 << 40)}, {"num_experts": 8, "decoder_sparse_step": 1e300},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_of_sizes_that_no_model_has_is_refused(model: Path, sizes: dict[str, Any]) -> None:
    config = json.loads((model / "config.json").read_text()) | sizes
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="in this config, and a model has"):
        find_model(str(model))


@pytest.mark.parametrize(("value", "told"), [('"\\ud800"', "surrogate"), ("[" * 40 + "]" * 40, "nested more than 32")])
def test_a_config_that_no_record_can_keep_is_refused(model: Path, value: str, told: str) -> None:
    (model / "config.json").write_text(f'{{"model_type": "llama", "x": {value}}}')
    with pytest.raises(BadInput, match=told):
        check_model_folder(model)


def test_a_look_for_a_config_follows_no_link_out(model: Path) -> None:
    (model / "config.json").unlink()
    (model.parent / "private" / "config.json").write_text('{"hidden_size": 4242}')
    (model / "config.json").symlink_to("../private/config.json")
    with pytest.raises(BadInput, match="leaves its folder"):
        find_model(str(model))


def test_the_list_holds_what_a_model_needs_and_nothing_that_runs() -> None:
    for name in ("model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.model", "tokenizer.model.v3"):
        assert is_wanted(name)
    odd = ("pytorch_model.bin", "x.py", "../x.safetensors", "a/model.safetensors", "tokenizer.model.v3.bak",
           "\u0663.safetensors", "model.safetensors\n", "-.safetensors", "id_rsa", "config.json.key")  # fmt: skip
    for name in odd:
        assert not is_wanted(name), name


def test_a_folder_copied_by_hand_is_still_a_folder(snapshot: Path, tmp_path: Path) -> None:
    shutil.copytree(snapshot, tmp_path / "copy")
    assert wanted_files(tmp_path / "copy").keys() == {file.name for file in snapshot.iterdir()}
