"""A hub that lies: what it sends is what it announced, or nothing of it is there; the user's token stays with it."""

from __future__ import annotations

import ast
import contextlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tunesmith.agent
import tunesmith.memory
import tunesmith.tools
from tests.fixtures.hub_stand_in import COMMIT, MODEL, TOKEN, Hub, Sender, hub_of, make_certificate
from tests.fixtures.tables import table
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.store import Store
from tunesmith.tools.models import hub_client, hub_download
from tunesmith.tools.models.base_job import materialize_hub
from tunesmith.tools.models.find import find_model
from tunesmith.tools.models.hub import inspect_hub

SHARD = "model.safetensors"


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_of(make_tiny_model(tmp_path / "on-the-hub", weight_bytes=200_000)) as made:
        yield made


@pytest.fixture
def here(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The hub as this process has it, for what takes no command line."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def fetched(hub: Hub, tmp_path: Path) -> Path:
    materialize_hub(MODEL, COMMIT, tmp_path / "out", quiet)
    return tmp_path / "out"


def refused(hub: Hub, tmp_path: Path, words: str) -> str:
    """It is refused in one line."""
    with pytest.raises(TunesmithError, match=words) as error:
        fetched(hub, tmp_path)
    assert "\n" not in str(error.value) and TOKEN not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def base(hub: Hub, tmp_path: Path, **env: str) -> tuple[int, Any]:
    """`tunesmith base --yes` of the model; nothing of it may be left where it does not end well."""
    tunesmith = Tunesmith(tmp_path / "home")
    done = tunesmith(
        "base", "--model", MODEL, "--revision", COMMIT, "--yes", "--json",
        **{**hub.env, "HF_HOME": str(tmp_path / "hf"), **env},
    )  # fmt: skip
    told = json.loads(done.stdout)
    if done.returncode:
        assert list((tunesmith.home / "models").glob("*")) == [], "nothing of it is left"
        assert len(told["message"].splitlines()) == 1 and TOKEN not in done.stdout + done.stderr
    return done.returncode, told


@pytest.mark.heavy
def test_a_base_comes_from_the_hub_whole_and_the_token_goes_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "LICENSE").write_text("Do what you like.\n")
    (hub.folder / "NOTICE").write_bytes(b"\x7fELF\0\0")
    (hub.folder / "training_args.bin").write_bytes(b"\x80\x04")
    code, told = base(hub, tmp_path, HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    assert code == 0, told
    copy = Path(told["result"]["path"])
    assert {file.name for file in copy.iterdir()} == set(hub.files()) - {"training_args.bin", "NOTICE"} | {
        "manifest.json"
    }
    assert (copy / SHARD).read_bytes() == (hub.folder / SHARD).read_bytes()
    assert {asked.key for asked in hub.asked} == {f"Bearer {TOKEN}"}


# Before anything starts, by the command line: what is done to the hub, and what is told of it.


def lists(*names: str) -> Callable[[Hub], object]:
    """Entries of these names, with everything that a file needs."""
    more = [{"rfilename": name, "size": 4, "blobId": "0" * 40} for name in names]
    return lambda hub: setattr(hub, "entries", lambda entries: entries + more)


def without_weights(hub: Hub) -> None:
    (hub.folder / SHARD).rename(hub.folder / "pytorch_model.bin")


def code(hub: Hub) -> None:
    (hub.folder / "processor_config.json").write_text(json.dumps({"deep": [{"auto_map": {"x": "evil.Evil"}}]}))


def shards(*names: str) -> Callable[[Hub], object]:
    text = json.dumps({"weight_map": {f"t{number}": name for number, name in enumerate(names)}})
    return lambda hub: (hub.folder / f"{SHARD}.index.json").write_text(text)


def another_commit(hub: Hub) -> None:
    hub.commit = "f" * 40


def without_hashes(hub: Hub) -> None:
    hub.entries = lambda entries: [{"rfilename": e["rfilename"], "size": e["size"]} for e in entries]


def of_negative_size(hub: Hub) -> None:
    hub.entries = lambda entries: [e | {"size": -1} for e in entries]


def deep(hub: Hub) -> None:
    config = json.loads((hub.folder / "config.json").read_text())
    nested: Any = 1
    for _ in range(500):
        nested = {"a": nested}
    (hub.folder / "config.json").write_text(json.dumps({**config, "rope_scaling": nested}))


INSPECTED: dict[str, tuple[Callable[[Hub], object], str]] = {
    "code": (code, "auto_map"),
    "weights that are a pickle": (without_weights, "only as a pickle"),
    "an adapter": (lists("adapter_config.json"), "it is an adapter"),
    "a shard outside": (shards("../../evil.safetensors"), "beside it"),
    "a shard that is not there": (shards(SHARD, "more.safetensors"), "lacks more.safetensors"),
    "another commit": (another_commit, "told of another commit"),
    "no hashes": (without_hashes, "gives no size or no hash"),
    "a size below zero": (of_negative_size, "gives no size or no hash"),
    "a config of 500 floors": (deep, "nested more than 32 deep"),
}


@pytest.mark.parametrize("attack", INSPECTED)
def test_what_must_not_be_loaded_is_refused_before_anything_starts(hub: Hub, tmp_path: Path, attack: str) -> None:
    do, words = INSPECTED[attack]
    do(hub)
    code, told = base(hub, tmp_path)
    assert code == 2 and words in told["message"], told
    assert Store(tmp_path / "home").steps() == [] and SHARD not in hub.fetched


# At work: the listing was right, and the files are not.


def sends(name: str, do: Callable[[Sender], object]) -> Callable[[Hub], object]:
    return lambda hub: hub.answers.update({name: do})


def other_bytes(hub: Hub) -> None:
    right = (hub.folder / SHARD).read_bytes()
    hub.answers[SHARD] = lambda to: to.send(right[:-4] + b"evil")


def more_bytes(hub: Hub) -> None:
    right = (hub.folder / SHARD).read_bytes()
    hub.answers[SHARD] = lambda to: to.send(right + b"more")


def of_another_commit(hub: Hub) -> None:
    hub.answers[SHARD] = lambda to: to.send((hub.folder / SHARD).read_bytes(), X_Repo_Commit="f" * 40)


def a_bomb(hub: Hub) -> None:
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packed.compress(b"\0" * (64 << 20)) + packed.flush()
    hub.answers[SHARD] = lambda to: to.send(data, Content_Encoding="gzip")


SENT: dict[str, tuple[Callable[[Hub], object], str]] = {
    "other bytes": (other_bytes, "came with other bytes than the hub announced"),
    "more bytes": (more_bytes, "sends more of model.safetensors of org/tiny than the"),
    "a body without end": (sends(SHARD, lambda to: to.pour()), "sends more of model.safetensors"),
    "a licence that is a pointer": (
        lambda hub: ((hub.folder / "LICENSE").write_text("MIT"),
                     hub.answers.update({"LICENSE": lambda to: to.send(b"version https://git-lfs.github.com/spec/v1\n")})),
        "LICENSE of org/tiny",
    ),
    "another commit": (of_another_commit, "of another commit"),
    "a bomb": (a_bomb, "compressed, which was not asked for"),
    "a redirect to a file": (sends(SHARD, lambda to: to.redirect("file:///etc/passwd")), "only https is followed"),
    "a redirect off the host": (
        sends(SHARD, lambda to: to.redirect("http://169.254.169.254/latest")), "to http://169.254.169.254, and only",
    ),
    "a redirect to another port": (sends(SHARD, lambda to: to.redirect("http://127.0.0.1:9/x")), "only https"),
    "redirects in a circle": (sends(SHARD, lambda to: to.redirect(to.path)), "more than 5 times"),
    "a refusal": (sends(SHARD, lambda to: to.send(b"{}", status=403)), "403; accept its licence"),
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("attack", SENT)
def test_what_was_not_announced_is_refused_at_work(here: Hub, tmp_path: Path, attack: str) -> None:
    do, words = SENT[attack]
    do(here)
    refused(here, tmp_path, words)
    assert bytes_in(tmp_path / "out") <= sum(file.stat().st_size for file in here.files().values())


def bytes_in(folder: Path) -> int:
    """Of its files; counted again where one that came whole at the refusal was given its name meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.heavy
def test_a_worker_that_refuses_leaves_nothing_below_models(hub: Hub, tmp_path: Path) -> None:
    other_bytes(hub)
    code, told = base(hub, tmp_path)
    assert code == 1 and "other bytes" in told["message"], told


NAMES = (
    "../evil.safetensors", "/tmp/evil.safetensors", "..\\evil.safetensors", "~/evil.safetensors", "a/../../x.json",
    "C:\\x.json", "x\0.json", "tokenizer.ssh", "vocab.secret", "LICENSE.key", "modeling.py", "evil.bin", ".env.json",
)  # fmt: skip


def test_no_file_of_another_name_is_asked_for_or_written(here: Hub, tmp_path: Path) -> None:
    lists(*NAMES)(here)
    before = set(tmp_path.rglob("*"))
    out = fetched(here, tmp_path)
    assert {file.name for file in out.iterdir()} == set(here.files())
    assert set(here.fetched) == set(here.files())
    assert {path for path in tmp_path.rglob("*") if out not in (path, *path.parents)} == before


@pytest.mark.heavy
def test_where_one_file_is_refused_no_other_is_still_written(here: Hub, tmp_path: Path) -> None:
    other_bytes(here)
    right = (here.folder / "config.json").read_bytes()

    def late(to: Sender) -> None:
        time.sleep(0.5)
        to.send(right)

    here.answers["config.json"] = late
    refused(here, tmp_path, "other bytes")
    assert [thread.name for thread in threading.enumerate() if thread.name.endswith("(work)")] == []


def test_a_download_that_breaks_off_is_gone_on_with(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "_PAUSE_S", 0.0)
    right, ranges = (here.folder / SHARD).read_bytes(), list[str]()

    def breaking(to: Sender) -> None:
        ranges.append(asked := to.headers.get("Range") or "bytes=0-")
        at = int(asked.removeprefix("bytes=").rstrip("-"))
        end = min(len(right), at + 60_000)
        headers = {"Content_Range": f"bytes {at}-{len(right) - 1}/{len(right)}"} if at else {}
        to.send(right[at:end], status=206 if at else 200, length=len(right) - at, **headers)
        to.close_connection = True

    here.answers[SHARD] = breaking
    assert (fetched(here, tmp_path) / SHARD).read_bytes() == right
    assert len(ranges) == 4 and ranges[0] == "bytes=0-" and len(set(ranges)) == 4


@pytest.mark.heavy
def test_what_stops_coming_is_given_up(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "STALLED_S", 0.5)
    here.answers[SHARD] = lambda to: to.drip((here.folder / SHARD).read_bytes())
    refused(here, tmp_path, "the hub sent under 64 kB of org/tiny in 0.5 s")


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_hub_that_does_not_tell_is_asked_no_longer_than_a_look_may_take(
    here: Hub, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("tunesmith.tools.models.hub._INSPECTED_S", 0.5)
    here.answers["listing"] = Sender.hang if how == "hang" else lambda to: to.drip(b" " * 100_000)
    for look in (lambda: inspect_hub(MODEL, COMMIT), lambda: find_model(MODEL)):
        with pytest.raises(TunesmithError, match=r"did not tell .* within 0\.5 s"):
            look()


def test_a_listing_without_end_is_not_read_to_its_end(here: Hub) -> None:
    here.answers["listing"] = lambda to: to.pour()
    with pytest.raises(TunesmithError, match="is over 4 MB on the hub"):
        inspect_hub(MODEL, COMMIT)


def test_the_hubs_own_cache_is_used_where_it_holds_what_was_announced(here: Hub, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub-cache" / "models--org--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / SHARD).write_bytes((here.folder / SHARD).read_bytes())
    (snapshot / "tokenizer.json").write_text("{}")
    (snapshot / "chat_template.jinja").symlink_to(here.folder / "chat_template.jinja")
    out = fetched(here, tmp_path)
    assert SHARD not in here.fetched and {"tokenizer.json", "chat_template.jinja"} <= set(here.fetched)
    assert all((out / name).read_bytes() == file.read_bytes() for name, file in here.files().items())


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A certificate that this process trusts."""
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    hub_client._client.cache_clear()
    yield certificate
    hub_client._client.cache_clear()


@pytest.mark.heavy
def test_another_host_is_followed_to_by_https_and_without_the_token(here: Hub, tmp_path: Path, trusted: Path) -> None:
    with hub_of(here.folder, certificate=trusted) as elsewhere:
        here.answers[SHARD] = lambda to: to.redirect(f"{elsewhere.address}{to.path}")
        elsewhere.answers[SHARD] = lambda to: to.redirect(f"{here.address}/back")
        here.answers["/back"] = lambda to: here.send_file(SHARD, to)
        assert (fetched(here, tmp_path) / SHARD).read_bytes() == (here.folder / SHARD).read_bytes()
        assert [asked.key for asked in elsewhere.asked] == [""]
        assert [asked.key for asked in here.asked if asked.path == "/back"] == [""], "nor on the way back"
        assert {asked.key for asked in here.asked if asked.path != "/back"} == {f"Bearer {TOKEN}"}


@pytest.mark.heavy
def test_another_host_is_not_believed_what_it_sends(here: Hub, tmp_path: Path, trusted: Path) -> None:
    other = make_tiny_model(tmp_path / "other", weight_bytes=200_000)
    (other / SHARD).write_bytes((other / SHARD).read_bytes()[:-4] + b"evil")
    with hub_of(other, certificate=trusted) as elsewhere:
        here.answers[SHARD] = lambda to: to.redirect(f"{elsewhere.address}{to.path}")
        refused(here, tmp_path, "other bytes")


def test_a_login_is_sent_as_it_lies_there_and_renewed_by_nobody(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own reader would renew a token that ends soon, and exchange one of a CI: both by requests."""
    kept = tmp_path / "token"
    kept.write_text(f"{TOKEN}-of-a-login\n")
    (tmp_path / "stored_tokens").write_text(f"[me]\nhf_token = {TOKEN}-of-a-login\nrefresh_token = r\nexpires_at = 1\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(kept))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "stored_tokens"))
    monkeypatch.setenv("HF_OIDC_RESOURCE", "models/org/tiny")
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "of-a-ci")
    assert sent_keys(here) == {f"Bearer {TOKEN}"}, "the environment comes first"
    monkeypatch.delenv("HF_TOKEN")
    assert sent_keys(here) == {f"Bearer {TOKEN}-of-a-login"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert sent_keys(here) == {""}
    kept.unlink()
    assert sent_keys(here) == {""}
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["stored_tokens"]


def sent_keys(hub: Hub) -> set[str]:
    """What two requests carry; there are no others, and the second brings back no cookie of the first."""
    hub.asked.clear()
    inspect_hub(MODEL, COMMIT)
    assert {asked.method for asked in hub.asked} == {"GET"} and "/api/models/" in hub.asked[0].path
    assert all("cookie" not in asked.headers for asked in hub.asked) and len(hub.asked) == 3
    return {asked.key for asked in hub.asked}


def test_of_the_hubs_own_library_nothing_is_used_that_asks_the_hub() -> None:
    rooms = [
        Path(room.__file__).parent for room in (tunesmith.agent, tunesmith.tools, tunesmith.memory) if room.__file__
    ]
    used = {
        f"{node.module}.{name.name}"
        for path in [path for room in rooms for path in room.rglob("*.py")]
        if "huggingface_hub" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("huggingface_hub")
        for name in node.names
    }
    assert used == {
        "huggingface_hub.constants", "huggingface_hub.try_to_load_from_cache", "huggingface_hub.utils._auth",
        "huggingface_hub.utils.validate_repo_id", "huggingface_hub.errors.HFValidationError",
    }  # fmt: skip


def test_a_token_does_not_travel_in_the_open(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.example")
    refused(here, tmp_path, "your token would travel in the open; name an https address, or unset HF_TOKEN")
    assert here.asked == []


PASSWORD = "of-a-mirror"


@table(
    "named",
    [f"//me:{PASSWORD}@", f"//{PASSWORD}@", f"//me:{PASSWORD}/x@", f"//me:80/{PASSWORD}@", f"//me@{PASSWORD}@"],
)
def test_an_address_with_a_user_or_a_password_is_refused_before_anything_is_asked(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", here.address.replace("//", named))
    told = refused(here, tmp_path, "HF_ENDPOINT holds a user or password, which would replace your token; leave it out")
    assert PASSWORD not in told and here.asked == []


@pytest.mark.heavy
def test_a_password_in_the_hubs_address_is_told_and_written_down_nowhere(hub: Hub, tmp_path: Path) -> None:
    """What asks the hub is refused, what asks nothing goes on; no screen, record or log has the password."""
    named = {"HF_ENDPOINT": hub.address.replace("//", f"//me:{PASSWORD}@"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
    tunesmith, said = Tunesmith(tmp_path / "home"), ""
    Store(tunesmith.home).new_run("test", plan={"steps": [{"stage": "import"}]})
    for code, words in (
        (2, ("base", "--model", MODEL, "--revision", COMMIT, "--yes")), (2, ("fits", MODEL)),
        (2, ("import", "--source", f"hub:org/rows@{COMMIT}", "--yes")), (0, ("doctor",)), (0, ("doctor", "--json")),
        (3, ("base", "--model", str(hub.folder))), (0, ("runs",)),
    ):  # fmt: skip
        done = tunesmith(*words, **named)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        said += done.stdout + done.stderr
    assert said.count("HF_ENDPOINT holds a user or password, which would") == 5 and hub.asked == []
    written = [file.read_bytes() for file in tunesmith.home.rglob("*") if file.is_file()]
    dump = "\n".join(sqlite3.connect(tunesmith.home / "tunesmith.db").iterdump())
    assert PASSWORD.encode() not in b"".join(written) and PASSWORD not in dump + said


def test_a_redirect_that_names_a_user_changes_nothing_of_what_is_sent(here: Hub, tmp_path: Path) -> None:
    here.answers[SHARD] = lambda to: to.redirect(here.address.replace("//", f"//me:{PASSWORD}@") + "/back")
    here.answers["/back"] = lambda to: here.send_file(SHARD, to)
    assert (fetched(here, tmp_path) / SHARD).read_bytes() == (here.folder / SHARD).read_bytes()
    assert {asked.key for asked in here.asked} == {f"Bearer {TOKEN}"}


def test_what_is_in_git_itself_is_held_against_its_blob(here: Hub, tmp_path: Path) -> None:
    text = (here.folder / "config.json").read_bytes()
    inspected = iter([text])
    here.answers["config.json"] = lambda to: to.send(next(inspected, text.replace(b"16", b"32")))
    refused(here, tmp_path, "config.json of org/tiny came with other bytes")
