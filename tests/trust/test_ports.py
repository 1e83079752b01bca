"""A key goes to a port of this machine only where a program of this user or of root has it: real sockets and users."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from openai import OpenAIError

from tests.fixtures.network import PROXY_VARIABLES, hears
from tests.fixtures.tables import table
from tests.trust.test_network import CLIENTS, KEY, MESSAGES, Ask, by_chat_client, refusal_of
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.what_leaves import channels
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.core.plain_file import read_key
from tunesmith.tools.evaluation.judge import find_judge
from tunesmith.tools.evaluation.judge_settings import JudgeSettings
from tunesmith.tools.pipeline.ray_launcher import connect
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.serving import listeners
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.client import ChatClient, ChatRequest
from tunesmith.tools.serving.endpoint import Endpoint
from tunesmith.tools.serving.listeners import Guard, SendRefused

NOBODY, STRANGER = 65534, 65533
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
SERVER = """
import socket, sys
host, accepts, port = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family) as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if host == "::":
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((host, port))
    server.listen(8)
    print(server.getsockname()[1], flush=True)
    while accepts:
        end = server.accept()[0]
        end.settimeout(5)
        try:
            print(repr(end.recv(4000)), flush=True)
        except OSError:
            pass
        end.close()
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program of another user")
has_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")


@dataclass
class Theirs:
    """A server of another user, in a process of its own."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def heard(self) -> str:
        """End it, and tell what reached it."""
        self.process.kill()
        assert self.process.stdout
        return self.process.stdout.read()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.tools.serving.client._BACKOFF_S", 0.0)


@contextmanager
def theirs(host: str = "127.0.0.1", *, uid: int = NOBODY, accepts: bool = True, port: int = 0) -> Iterator[Theirs]:
    command = [PYTHON, "-I", "-S", "-c", SERVER, host, str(accepts), str(port)]
    with subprocess.Popen(
        command, user=uid, group=uid, extra_groups=[], cwd="/", env={}, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            yield Theirs(int(process.stdout.readline()), process)
        finally:
            process.kill()


def after(host: str, port: int) -> None:
    """Ask of a connection what is asked before a key is sent over it."""
    bracketed = f"[{host}]" if ":" in host else host
    guard = Guard(read_address(f"http://{bracketed}:{port}"))
    with socket.create_connection((host, port)) as connected:
        guard.after(connected)
    with socket.create_connection((host, port)) as connected:
        asyncio.run(guard.after_async(connected))


def refused_at(host: str, port: int, told: str) -> None:
    with pytest.raises(SendRefused, match=told):
        after(host, port)


@as_root
@table("ask", CLIENTS)
def test_no_key_goes_to_another_users_port(ask: Ask) -> None:
    with theirs() as server:
        assert f"another user (uid {NOBODY}); no key was sent" in refusal_of(ask, server.url)
        assert KEY not in server.heard()


def another_user_is_at_work(patch: pytest.MonkeyPatch) -> None:
    """For the questions before a key is sent this process's own servers are somebody else's."""
    patch.setattr(os, "geteuid", lambda: STRANGER)
    patch.setattr(listeners, "_ROOT", STRANGER)


def test_a_key_goes_to_a_users_own_port_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the test before, where only root could start a program of another user."""
    with hears() as server:
        for ask in CLIENTS:
            assert ask(server.url(), None) == "forged"
        assert len(server.requests) == len(CLIENTS)
        another_user_is_at_work(monkeypatch)
        for ask in CLIENTS:
            assert "no key was sent" in refusal_of(ask, server.url())
        assert len(server.requests) == len(CLIENTS)


@has_ray
def test_rays_token_goes_to_a_head_of_this_user_or_of_root_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(KEY)
    (tmp_path / "token").chmod(0o600)

    def asked(port: int) -> str:
        settings = RaySettings(address=f"127.0.0.1:{port}", token_file="token", storage="/srv")
        with pytest.raises(StepFailed) as told:
            connect(settings, tmp_path)
        return str(told.value)

    with hears() as proxy, hears(status=400) as own:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url())
        asked(own.port)
        assert len(own.requests) == 1 and f"Bearer {KEY}" in own.requests[0]
        another_user_is_at_work(monkeypatch)
        assert "belongs to a program of another user" in asked(own.port)
        assert len(own.requests) == 1 and proxy.requests == []


@as_root
@pytest.mark.heavy
@table(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.8.9.1"), ("0.0.0.0", "::ffff:127.0.0.1"),
     ("::1", "::1"), ("127.0.0.1", "localhost"), ("::", "::1"), ("::", "127.0.0.1"),
     ("::ffff:127.0.0.1", "127.0.0.1")],
)  # fmt: skip
def test_whatever_address_a_port_is_reached_by_its_user_is_known(bound: str, asked: str) -> None:
    for accepts in (True, False):
        with theirs(bound, accepts=accepts) as server:
            refused_at(asked, server.port, f"uid {NOBODY}")
        with theirs(bound, uid=os.geteuid(), accepts=accepts) as server:
            after(asked, server.port)


@as_root
def test_roots_program_and_the_users_own_are_trusted_and_no_third_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with theirs(uid=STRANGER) as own, theirs(uid=0) as roots, theirs() as other:
        after("127.0.0.1", own.port)
        after("127.0.0.1", roots.port)
        refused_at("127.0.0.1", other.port, f"uid {NOBODY}")


@as_root
@pytest.mark.heavy
def test_of_several_listeners_on_a_port_all_must_be_trusted_while_nobody_has_accepted() -> None:
    with theirs(uid=0, accepts=False) as own, theirs("::1", port=own.port) as other:
        refused_at("127.0.0.1", own.port, f"uid {NOBODY}")
        other.heard()
        with theirs(uid=0, accepts=False, port=own.port):  # both are root's
            after("127.0.0.1", own.port)


@as_root
def test_who_accepted_counts_and_not_who_listens_beside_it() -> None:
    with theirs(uid=0) as own, theirs("::1", port=own.port):
        after("127.0.0.1", own.port)
        refused_at("::1", own.port, f"uid {NOBODY}")


def test_a_program_that_cannot_be_seen_is_sent_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a port is forwarded into another network namespace."""
    (tmp_path / "empty").write_text("  sl  local_address\n")
    monkeypatch.setattr(listeners, "_TABLES", (tmp_path / "empty", tmp_path / "none"))
    with hears() as server:
        assert "it cannot be seen whose program answers" in refusal_of(by_chat_client, server.url())
        assert server.requests == []


def test_where_the_system_does_not_say_whose_a_port_is_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes() -> list[str]:
        """Of the driver, the judge and Ray."""
        url = "http://127.0.0.1:8000/v1"
        ray = RaySettings(address="127.0.0.1:8265", token_file="t", storage="s")
        judge = JudgeSettings(endpoint=url, name="m", key_file="k")
        settings = Settings(home=tmp_path, driver=DriverSettings(endpoint=url, key=KEY), judge=judge, ray=ray)
        return [one.note for one in channels(settings) if one.what in ("driver", "judge", "Ray")]

    assert all("only to a program of yours or of root" in note for note in notes())
    monkeypatch.setattr(listeners, "_TABLES", (tmp_path / "none",))
    assert len(notes()) == 3 and all("this system does not say whose it is" in note for note in notes())
    with hears() as server:
        assert by_chat_client(server.url()) == "forged"
        assert KEY in server.requests[0]


@as_root
def test_an_endpoint_without_a_key_may_be_anybodys() -> None:
    async def by_judge(url: str) -> None:
        async with ChatClient(url, "") as chat:
            await chat.complete(ChatRequest("q", "m", MESSAGES, 8))

    async def by_driver(url: str) -> None:
        async with Endpoint(f"{url}/v1", "m").client(timeout_s=5) as client:
            with contextlib.suppress(OpenAIError):  # it answers nothing
                await client.models.list()

    for ask in (by_judge, by_driver):
        with theirs() as server:
            asyncio.run(ask(server.url))
            assert "HTTP/1.1" in server.heard()


@table("mode", [0o640, 0o604, 0o660, 0o644, 0o602])
def test_a_key_that_others_can_read_is_refused_with_what_to_type(mode: int, tmp_path: Path) -> None:
    key = tmp_path / "judge key"
    key.write_text(f"{KEY}\n")
    key.chmod(mode)
    (tmp_path / "settings.toml").write_text(
        '[judge]\nendpoint = "http://127.0.0.1:1/v1"\nname = "m"\nkey_file = "judge key"\n'
    )
    ray = RaySettings(address="127.0.0.1:1", token_file="judge key", storage="s")
    for read in (lambda: find_judge("endpoint", tmp_path), lambda: ray.token(tmp_path)):
        with pytest.raises(BadInput, match=rf"is open to other users \(mode {mode:04o}\); type `chmod 600 '{key}'`"):
            read()
    for private in (0o600, 0o400):
        key.chmod(private)
        assert find_judge("endpoint", tmp_path).key == ray.token(tmp_path) == KEY


def test_a_key_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    for name, told in (("gone", "No such file"), ("a\0b", "no file name"), (".", "Is a directory")):
        with pytest.raises(BadInput, match=f"cannot read key_file .*{told}"):
            read_key(tmp_path / name, "judge", "key_file")
