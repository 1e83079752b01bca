"""A data set of the hub: only at a commit, only after a yes, only its files of rows, and byte for byte as listed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.fixtures.terminal import Tunesmith
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.imports import hub_source
from tunesmith.tools.imports.hub_source import HubSource, parse_source
from tunesmith.tools.models.hub import HubFile
from tunesmith.tools.pipeline import catalog

COMMIT = "0123456789abcdef" * 2 + "01234567"
SOURCE = f"hub:org/rows@{COMMIT}"
ROWS = "".join(json.dumps({"prompt": f"question {n}", "completion": f"answer {n}"}) + "\n" for n in range(20))


class Hub:
    """The two addresses that a data set is asked for; what is told and what is sent may differ."""

    def __init__(self) -> None:
        hub, self.files, self.asked = self, {"data/train.jsonl": ROWS.encode()}, list[str]()
        self.sent: dict[str, bytes] = {}
        self.redirect = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                hub.asked.append(path)
                if path == f"/api/datasets/org/rows/revision/{COMMIT}":
                    return self.answer(json.dumps(hub.listing()).encode())
                name = path.removeprefix(f"/datasets/org/rows/resolve/{COMMIT}/")
                if hub.redirect:
                    self.send_response(302)
                    self.send_header("Location", hub.redirect)
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                data = hub.sent.get(name, hub.files.get(name))
                return self.answer(data or b"{}", 200 if data else 404)

            def answer(self, data: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def env(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.server.server_port}"
        return {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}

    def listing(self) -> dict[str, Any]:
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            for name, data in self.files.items()
        ]
        return {"id": "org/rows", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


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


def test_a_file_that_is_not_there_asks_nobody(tunesmith: Tunesmith, hub: Hub) -> None:
    for name in ("data/rows.jsonl", "org/rows"):
        done = tunesmith("rows", "import", name, **hub.env)
        assert done.returncode == 2 and f"there is no {name}" in done.stderr and "hub:owner/name@COMMIT" in done.stderr
    assert hub.asked == []


@pytest.mark.heavy
def test_nothing_is_fetched_without_a_yes_and_after_it_the_rows_are_there(tunesmith: Tunesmith, hub: Hub) -> None:
    hub.files |= {"README.md": b"---\nconfigs: evil\n---", "rows.py": b"raise SystemExit", "data/test.jsonl": b"{}"}
    hub.files["dataset_infos.json"] = b"{}"
    done = tunesmith("rows", "import", SOURCE, "--json", **hub.env)
    assert done.returncode == 3, done.stdout + done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert plan["estimate"]["disk_bytes"] >= len(ROWS) and f"org/rows at {COMMIT[:12]}" in plan["summary"]
    assert not any("resolve" in path for path in hub.asked)
    done = tunesmith("rows", "import", SOURCE, "--yes", "--json", **hub.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.rpartition("/")[2] for path in hub.asked if "resolve" in path] == ["train.jsonl"]
    store = Store(tunesmith.home)
    [rows] = store.artifacts("r1", "rows")
    assert len(read_rows(rows.path / "rows.jsonl")) == 20 and not (rows.path.parent / "hub").exists()
    [approval] = store.read("SELECT * FROM approvals WHERE used_at IS NOT NULL")
    assert approval["stage"] == "import"


@pytest.mark.heavy
def test_another_list_than_was_agreed_to_is_not_fetched(tunesmith: Tunesmith, hub: Hub) -> None:
    assert tunesmith("rows", "import", SOURCE, **hub.env).returncode == 3
    waiting = Store(tunesmith.home).priced_steps()[-1]
    hub.files["data/train.jsonl"] = ROWS.encode() * 2
    done = tunesmith("import", "--approve", waiting.plan_hash[:12], **hub.env)
    assert done.returncode == 3 and not any("resolve" in path for path in hub.asked)


def fetched(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    url = f"{hub.env['HF_ENDPOINT']}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setattr(constants, "ENDPOINT", hub.env["HF_ENDPOINT"])
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", url, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    file = HubFile("data/train.jsonl", len(ROWS), hashlib.sha256(ROWS.encode()).hexdigest(), "")
    [path] = hub_source.fetch(parse_source(SOURCE), [file], tmp_path / "hub", lambda *_: None)
    return path


@pytest.mark.heavy
def test_what_arrives_is_what_was_listed_or_nothing(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sent, wrong in (
        (ROWS.encode() * 100, "sends more"), (ROWS.encode()[:-1], "other bytes"), (b"x" * len(ROWS), "another hash"),
    ):  # fmt: skip
        hub.sent["data/train.jsonl"] = sent
        with pytest.raises(StepFailed, match=wrong):
            fetched(hub, tmp_path, monkeypatch)
        assert not (tmp_path / "hub" / "0001.jsonl").exists()
        assert (tmp_path / "hub" / "0001.jsonl.part").stat().st_size <= len(ROWS)
    hub.sent.clear()
    path = fetched(hub, tmp_path, monkeypatch)
    assert path.read_text() == ROWS
    hub.sent["data/train.jsonl"] = b"x" * len(ROWS)
    assert fetched(hub, tmp_path, monkeypatch).read_text() == ROWS, "a whole file of an earlier attempt stays"


@pytest.mark.parametrize("target", ["http://example.invalid/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_off_https_is_not_followed(
    target: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.redirect = target
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
