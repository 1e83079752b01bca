"""The page about what leaves this machine says what `tunesmith doctor` says and what a hub hears; its commands work."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures import warm
from tests.fixtures.hub_stand_in import COMMIT, MODEL, TOKEN, Asked, Hub, Sender, hub_of, make_certificate
from tests.fixtures.network import PROXY_VARIABLES, Heard, hears
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.settings import Settings, SettingsFile
from tunesmith.agent.version import VERSION
from tunesmith.agent.what_leaves import OFF, channels
from tunesmith.memory.store import Store
from tunesmith.tools.machine.torch_env import OFFLINE
from tunesmith.tools.serving.spec import ServerSpec, environment

PAGE = (Path(__file__).parents[2] / "docs" / "what-leaves.md").read_text()


def rows_under(head: str) -> list[list[str]]:
    """The rows of the table that begins with this cell."""
    table = PAGE.partition(f"\n| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_table_is_the_doctors() -> None:
    """Row by row; what is off there is never here."""
    found = channels(Settings(home=Path("/nowhere")))
    assert [row[0] for row in rows_under("what")] == [one.what for one in found]
    for row, one in zip(rows_under("what"), found, strict=True):
        assert row[1].startswith("never") == (one.state == OFF or one.what == "teacher"), row[0]


def test_what_is_said_to_be_switched_off_is(tmp_path: Path) -> None:
    served = environment(ServerSpec(model_dir=str(tmp_path), served_name="m", device="cuda"), "vllm")
    named = set(re.findall(r"`([A-Z_]+=1)`", PAGE))
    assert named == {"VLLM_NO_USAGE_STATS=1", "HF_HUB_DISABLE_TELEMETRY=1", "HF_HUB_OFFLINE=1"}
    assert named <= {f"{name}={value}" for name, value in OFFLINE.items()} and OFFLINE.items() <= served.items()


@dataclass(frozen=True)
class Network:
    """A hub, another host that it redirects to, and a proxy that hears whoever asks anybody else."""

    hub: Hub
    elsewhere: Hub
    proxy: Heard
    tunesmith: Tunesmith
    env: dict[str, str]

    def __call__(self, code: int, *args: str, **env: str) -> list[Asked]:
        """What the hub is asked by a command that ends with this code."""
        before = len(self.hub.asked)
        done = self.tunesmith(*args, **{**self.env, **env})
        assert done.returncode == code, done.stdout + done.stderr
        return self.hub.asked[before:]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    folder, rows = make_tiny_model(tmp_path / "on-the-hub", weight_bytes=200_000), tmp_path / "rows" / "data"
    rows.mkdir(parents=True)
    lines = (json.dumps({"prompt": f"question {n}", "completion": f"answer {n}"}) for n in range(20))
    (rows / "train.jsonl").write_text("\n".join(lines))
    certificate, tunesmith = make_certificate(tmp_path), Tunesmith(tmp_path / "home")
    Store(tunesmith.home).new_run("test", plan={"steps": [{"stage": "import"}]})
    with hub_of(folder) as hub, hub_of(folder, certificate=certificate) as elsewhere, hears() as proxy:
        hub.pages["datasets/org/rows"] = rows.parent
        env = {
            **hub.env, **dict.fromkeys(PROXY_VARIABLES, proxy.url()), "NO_PROXY": "", "no_proxy": "",
            "HF_HOME": str(tmp_path / "hf"), "SSL_CERT_FILE": str(certificate),
        }  # fmt: skip
        yield Network(hub, elsewhere, proxy, tunesmith, env)


def break_off(hub: Hub, name: str) -> None:
    """Have the first connection to a file end within it."""
    right = next(files[name] for page in hub.pages if name in (files := hub.files(page))).read_bytes()

    def answer(to: Sender) -> None:
        at = int(to.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        end, more = (len(right), {"Content_Range": f"bytes {at}-/{len(right)}"}) if at else (len(right) // 2, {})
        to.send(right[at:end], status=206 if at else 200, length=len(right) - at, **more)

    hub.answers[name] = answer


def ask_in_every_way(network: Network) -> None:
    """By the real commands and workers: a look, a price, a refusal, a download, and what asks nothing."""
    hub, rows, here = network.hub, f"hub:org/rows@{COMMIT}", ("base", "--model", MODEL)
    for name in (MODEL, f"https://huggingface.co/{MODEL}", f"https://hf.co/{MODEL}/tree/main"):
        assert network(0, "fits", name)
    assert {asked.key for asked in network(0, "fits", MODEL, HF_TOKEN="")} == {""}, "nobody is logged in"
    assert network(3, *here) and network(3, *here, "--revision", "main")
    hub.answers["listing"] = lambda to: to.send(b"{}", status=403)
    assert network(2, *here) and network(2, "rows", "import", rows), "both are gated"
    del hub.answers["listing"]
    assert network(0, "doctor") == network(0, "runs") == []
    for code, words in ((2, ("fits", MODEL)), (2, here), (1, ("rows", "import", rows))):
        assert network(code, *words, HF_HUB_OFFLINE="1") == []
    for place, name in ((hub, "tokenizer.json"), (hub, "data/train.jsonl"), (network.elsewhere, "model.safetensors")):
        break_off(place, name)
    hub.answers["model.safetensors"] = lambda to: to.redirect(f"{network.elsewhere.address}{to.path}")
    assert network(0, *here, "--yes")
    assert network(3, "rows", "import", rows.partition("@")[0]) and network(0, "rows", "import", rows, "--yes")


def pattern(request: str) -> re.Pattern[str]:
    """Of a request as the page writes it."""
    part, rest = "[^/?]+", "[^?]+"
    meant = {"OWNER": part, "NAME": part, "REVISION": part, "FILE": rest, "ADDRESS": rest}
    return re.compile(re.sub("[A-Z]{4,}", lambda word: meant[word[0]], re.escape(request)))


@pytest.mark.heavy
def test_the_hub_is_asked_what_the_page_names_and_nothing_else(network: Network) -> None:
    """What it hears is compared with the page, both ways: each request, and each name and value of a header."""
    ask_in_every_way(network)
    named = {
        request.strip("`"): set(re.findall(r"`(.+?)`", more.lower())) for request, _, more in rows_under("request")
    }
    usual = {
        name.strip("`").lower(): value.strip("`") for name, value, when in rows_under("header") if when == "always"
    }
    usual |= {"user-agent": f"tunesmith/{VERSION}"}
    heard: dict[str, set[str]] = {}
    for hub, start in ((network.hub, ""), (network.elsewhere, network.elsewhere.address)):
        usual["host"] = hub.address.partition("://")[2]
        for one in hub.asked:
            [request] = [row for row in named if pattern(row).fullmatch(start + one.path)] or [one.path]
            more = {name: value for name, value in one.headers.items() if name not in usual}
            assert (one.method, usual | more) == ("GET", one.headers)
            assert one.key in ("", f"Bearer {TOKEN}") and re.fullmatch(r"(bytes=\d+-)?", more.get("range", ""))
            heard.setdefault(request, set()).update(more)
    assert heard == named
    assert {name.strip("`").lower() for name, *_ in rows_under("header")} == usual.keys() | set().union(*named.values())
    assert "`tunesmith/VERSION`" in [value for _, value, _ in rows_under("header")]
    assert network.proxy.connections == 0 and not (network.tunesmith.home.parent / "hf").exists()


def test_its_settings_are_ones() -> None:
    (text,) = re.findall(r"```toml\n(.+?)```", PAGE, re.DOTALL)
    judge = SettingsFile.model_validate(tomllib.loads(text)).judge
    assert judge.endpoint and judge.allow_plain_http


@pytest.mark.heavy
def test_its_commands_work(tmp_path: Path) -> None:
    commands = re.findall(r"^    tunesmith (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    env = {"TUNESMITH_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "TUNESMITH_VLLM": "/nowhere/vllm"}
    for command in commands:
        done = warm.run(shlex.split(command), env)
        assert done.returncode == 0, done.stderr
        assert "tunesmith" in done.stdout or "event" in done.stdout
