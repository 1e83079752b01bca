"""A data set of the hub: only at a commit, only after a yes, only its files of rows, and byte for byte as listed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.hub_stand_in import COMMIT, Hub
from tests.fixtures.tables import table
from tests.fixtures.terminal import Tunesmith
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.imports import hub_source
from tunesmith.tools.imports.hub_source import HubSource, parse_source
from tunesmith.tools.models.hub import HubFile
from tunesmith.tools.pipeline import catalog

SOURCE = f"hub:org/rows@{COMMIT}"
ROWS = "".join(json.dumps({"prompt": f"question {n}", "completion": f"answer {n}"}) + "\n" for n in range(20))


PAGE = "datasets/org/rows"


class Rows(Hub):
    """A hub that has one data set."""

    @property
    def fetched(self) -> list[str]:
        """The files that were asked for, in order."""
        return [asked.path.rpartition("/")[2] for asked in self.asked if "/resolve/" in asked.path]

    def write(self, name: str, data: bytes) -> None:
        """A file of the data set."""
        file = self.pages[PAGE] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Rows]:
    made = Rows(tmp_path / "no-model")
    made.pages = {PAGE: tmp_path / "on-the-hub"}
    made.write("data/train.jsonl", ROWS.encode())
    yield made
    made.close()


@pytest.fixture
def tunesmith(tmp_path: Path) -> Tunesmith:
    made = Tunesmith(tmp_path / "home")
    Store(made.home).new_run("test", plan={"steps": [{"stage": "import"}]})
    return made


@table("typed", ["hub:org/rows", "hub:org/rows@main", f"hub:org/rows@{COMMIT[:12]}", "hub:org/rows@"])
def test_a_data_set_without_its_commit_is_told_what_to_type(typed: str) -> None:
    with pytest.raises(BadInput, match=r"hub:org/rows@COMMIT, 40 hex digits; `git ls-remote .*datasets/org/rows HEAD`"):
        parse_source(typed)
    assert parse_source(f"hub:org/rows/en/small@{COMMIT}") == HubSource("org/rows", "en/small", COMMIT)
    for odd in ("hub:rows", "hub:../x@y", "hub:", f"hub:org@{COMMIT}"):
        with pytest.raises(BadInput):
            parse_source(odd)


def test_only_what_downloads_is_asked_about() -> None:
    entry = catalog.ENTRIES["import"]
    assert entry.asks({"source": SOURCE}) and not entry.asks({"source": "/data/rows.jsonl"})


def test_a_file_that_is_not_there_asks_nobody(tunesmith: Tunesmith, hub: Rows) -> None:
    for name in ("data/rows.jsonl", "org/rows"):
        done = tunesmith("rows", "import", name, **hub.env)
        assert done.returncode == 2 and f"{name} is not there; name a file" in done.stderr
        assert "hub:owner/name@COMMIT" in done.stderr
    assert hub.asked == []


@pytest.mark.heavy
def test_nothing_is_fetched_without_a_yes_and_after_it_the_rows_are_there(tunesmith: Tunesmith, hub: Rows) -> None:
    for name in ("README.md", "rows.py", "data/test.jsonl", "dataset_infos.json"):
        hub.write(name, b"{}")
    done = tunesmith("rows", "import", SOURCE, "--json", **hub.env)
    assert done.returncode == 3, done.stdout + done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert plan["estimate"]["disk_bytes"] >= len(ROWS) and f"org/rows at {COMMIT[:12]}" in plan["summary"]
    assert hub.fetched == []
    done = tunesmith("rows", "import", SOURCE, "--yes", "--json", **hub.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.fetched == ["train.jsonl"]
    store = Store(tunesmith.home)
    [rows] = store.artifacts("r1", "rows")
    assert len(read_rows(rows.path / "rows.jsonl")) == 20 and not (rows.path.parent / "hub").exists()
    [approval] = store.read("SELECT * FROM approvals WHERE used_at IS NOT NULL")
    assert approval["stage"] == "import"


@pytest.mark.heavy
def test_another_list_than_was_agreed_to_is_not_fetched(tunesmith: Tunesmith, hub: Rows) -> None:
    assert tunesmith("rows", "import", SOURCE, **hub.env).returncode == 3
    waiting = Store(tunesmith.home).priced_steps()[-1]
    hub.write("data/train.jsonl", ROWS.encode() * 2)
    done = tunesmith("import", "--approve", waiting.plan_hash[:12], **hub.env)
    assert done.returncode == 3 and hub.fetched == []


def fetched(hub: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    file = HubFile("data/train.jsonl", len(ROWS), hashlib.sha256(ROWS.encode()).hexdigest(), "")
    [path] = hub_source.fetch(parse_source(SOURCE), [file], tmp_path / "hub", lambda *_: None)
    return path


@pytest.mark.heavy
def test_what_arrives_is_what_was_listed_or_nothing(hub: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sent, wrong in (
        (ROWS.encode() * 100, "sends more"), (ROWS.encode()[:-1], "other bytes"), (b"x" * len(ROWS), "another hash"),
    ):  # fmt: skip
        hub.write("data/train.jsonl", sent)
        with pytest.raises(StepFailed, match=wrong):
            fetched(hub, tmp_path, monkeypatch)
        assert not (tmp_path / "hub" / "0001.jsonl").exists()
        assert (tmp_path / "hub" / "0001.jsonl.part").stat().st_size <= len(ROWS)
    hub.write("data/train.jsonl", ROWS.encode())
    assert fetched(hub, tmp_path, monkeypatch).read_text() == ROWS
    hub.write("data/train.jsonl", b"x" * len(ROWS))
    assert fetched(hub, tmp_path, monkeypatch).read_text() == ROWS, "a whole file of an earlier attempt stays"


@pytest.mark.parametrize("target", ["http://example.invalid/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_off_https_is_not_followed(
    target: str, hub: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.answers["data/train.jsonl"] = lambda to: to.redirect(target)
    with pytest.raises(StepFailed, match="only https is followed; nothing was fetched"):
        fetched(hub, tmp_path, monkeypatch)


def test_names_splits_and_folders_choose_files_and_never_two_sets_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(source: str, split: str, *names: str) -> list[str]:
        siblings = [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in names]
        listing = {"sha": COMMIT, "siblings": siblings}
        monkeypatch.setattr(hub_source, "hub_listing", lambda name, revision, kind: listing)
        return [file.name for file in hub_source.list_files(parse_source(f"hub:org/{source}@{COMMIT}"), split)]

    assert chosen("r", "train", "train.csv", "test.csv", "x.py", "state.json") == ["train.csv"]
    assert chosen("r", "train", "b.parquet", "a.parquet") == ["a.parquet", "b.parquet"]
    both = ("en/train-0.parquet", "de/train-0.parquet")
    assert chosen("r/en", "train", *both) == ["en/train-0.parquet"]
    for split, names, wrong in (
        ("train", both, "holds rows in de, en; name one folder"), ("train", ("test.csv",), "no split 'train'"),
        ("train", ("train.csv", "train.json"), r"\.csv, \.json"), ("train", ("x.py",), "no file of rows"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=wrong):
            chosen("r", split, *names)
