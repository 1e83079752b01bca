"""Files: whole or absent, and a sealed folder tells when it was touched."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import (
    atomic_write,
    new_folder,
    publish_folder,
    read_manifest,
    seal,
    set_aside,
    verify,
    write_protect,
)


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_a_sealed_folder_verifies_and_an_unsealed_one_does_not(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", a="1", b="2")
    with pytest.raises(StepFailed, match="never finished"):
        verify(folder)
    sealed = seal(folder, kind="model")
    assert verify(folder, sealed["sha256"])["kind"] == "model"


@table("tamper", ["change", "add", "remove", "same-size"])
def test_every_way_of_touching_a_sealed_folder_is_found(tmp_path: Path, tamper: str) -> None:
    folder = folder_with(tmp_path / "m", a="11", b="22")
    seal(folder)
    if tamper == "change":
        (folder / "a").write_text("changed")
    elif tamper == "same-size":
        (folder / "a").write_text("12")
    elif tamper == "add":
        (folder / "c").write_text("new")
    else:
        (folder / "b").unlink()
    with pytest.raises(StepFailed):
        verify(folder)


_ENTRY = {"sha256": "0" * 64, "bytes": 1}


@table(
    "changed",
    [
        {"files": 5},
        {"files": None},
        {"files": ["a"]},
        {"files": {"a": 5}},
        {"files": {"a": {"bytes": 1}}},
        {"files": {"a": {"sha256": "0" * 64}}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": "1"}}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": True}}},
        {"files": {"a": {"sha256": 5, "bytes": 1}}},
        {"files": {"/etc/passwd": _ENTRY}},
        {"files": {"../a": _ENTRY}},
        {"files": {"in/../../a": _ENTRY}},
        {"sha256": None},
        {"bytes": "1"},
        "[]",
        "5",
        "[" * 100_000,
        '{"files": {',
    ],
)
def test_a_manifest_that_seal_did_not_write_is_none(
    tmp_path_factory: pytest.TempPathFactory, changed: dict[str, object] | str
) -> None:
    folder = folder_with(tmp_path_factory.mktemp("folder") / "m", a="1")
    sealed = seal(folder)
    assert read_manifest(folder) == sealed
    (folder / "manifest.json").write_text(changed if isinstance(changed, str) else json.dumps({**sealed, **changed}))
    assert read_manifest(folder) is None
    with pytest.raises(StepFailed, match=r"has no whole manifest: .*; run the step that makes it again"):
        verify(folder)


def test_a_name_with_dots_in_it_stays_within_its_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", **{"a..b": "1", "..c": "2"})
    assert verify(folder, seal(folder)["sha256"])["files"].keys() == {"a..b", "..c"}


def test_another_folder_under_the_same_name_is_not_the_recorded_artifact(tmp_path: Path) -> None:
    first = seal(folder_with(tmp_path / "one", a="1"))
    folder = folder_with(tmp_path / "two", a="2")
    seal(folder)
    with pytest.raises(StepFailed, match="not the artifact"):
        verify(folder, first["sha256"])


def test_the_digest_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    one = seal(folder_with(tmp_path / "one", a="1", b="2"), note="x")
    time.sleep(0.01)
    two = seal(folder_with(tmp_path / "two", b="2", a="1"), note="y")
    assert one["sha256"] == two["sha256"]


def test_a_folder_whose_making_failed_is_absent(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        publish_folder(tmp_path / "model", fill)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_folder_is_not_made_again(tmp_path: Path) -> None:
    publish_folder(tmp_path / "model", lambda folder: (folder / "a").write_text("1") and None)
    again = publish_folder(tmp_path / "model", lambda folder: pytest.fail("made again"))
    assert again == read_manifest(tmp_path / "model")


@pytest.mark.heavy
def test_kill_9_while_writing_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    atomic_write(target, "0" * 4_000_000)
    code = textwrap.dedent(f"""
        from pathlib import Path
        from tunesmith.memory.files import atomic_write
        n = 0
        print("ready", flush=True)
        while True:
            n += 1
            atomic_write(Path({str(target)!r}), str(n % 10) * 4_000_000)
    """)
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(0.05)
        child.kill()
        child.wait()
        text = target.read_text()
        assert len(text) == 4_000_000 and len(set(text)) == 1


def test_a_protected_folder_has_no_write_bits(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", a="1")
    write_protect(folder)
    assert (folder / "a").stat().st_mode & 0o222 == 0
    assert folder.stat().st_mode & 0o222 == 0, "so that no file manager leaves something in it"


def test_what_is_set_aside_is_whole_and_never_in_the_way(tmp_path: Path) -> None:
    asides = {set_aside(folder_with(tmp_path / "m", a=text)) for text in "12"}
    assert sorted((aside / "a").read_text() for aside in asides) == ["1", "2"]
    assert all(aside.name.startswith("m.damaged-") for aside in asides) and not (tmp_path / "m").exists()


def test_a_new_folder_takes_the_first_free_name_and_never_another_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    (tmp_path / "a-2").mkdir()
    (tmp_path / "a-2" / "mine").write_text("1")
    made = new_folder(tmp_path, "a", lambda folder: (folder / "whole").write_text("2") and None)
    assert made == tmp_path / "a-3" and (made / "whole").read_text() == "2"
    assert (tmp_path / "a").read_text() == "a file" and (tmp_path / "a-2" / "mine").read_text() == "1"


def test_many_who_want_one_name_each_get_a_folder_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda n: new_folder(tmp_path, "a", lambda f: (f / "n").write_text(str(n)) and None), range(24))
        )
    assert len(set(made)) == 24 and sorted(int((folder / "n").read_text()) for folder in made) == list(range(24))
