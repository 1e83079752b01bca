"""Servers of models: no route but health answers without the key, which goes to nobody but our own server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.waiting import wait_for
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.serving import servers, spec
from tunesmith.tools.serving.listeners import Listener
from tunesmith.tools.serving.restarts import port_is_free
from tunesmith.tools.serving.spec import ServerSpec

STUB = str(FIXTURES / "stub_vllm.py")
_LOOP = asyncio.new_event_loop()
KEY, LOADER = "the-key", "the-loader"
ROUTES = (
    "/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/embeddings", "/invocations", "/tokenize",
    "/metrics", "/load", "/version", "/ping", "/adapters", "/adapters/x", "/is_scaling_elastic_ep", "/detokenize",
    "/pause", "/resume", "/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/server_info",
    "/docs", "/redoc", "/pooling", "/score", "/rerank", "/classify", "/", "", "//health", "/health/", "/Health",
    "/health/../metrics", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/inference/v1/generate",
    "/openapi.json", "/scale_elastic_ep", "/of_the_future",
)  # fmt: skip


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The guard as vLLM loads it, before an application that answers everything."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("TUNESMITH_LOADER_KEY", LOADER)
    found = importlib.util.spec_from_file_location("tunesmith_guard", spec.GUARD / "tunesmith_guard.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    return module.Guard(app)


def status(guard: Any, method: str, path: str, *headers: tuple[str, str], kind: str = "http") -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    _LOOP.run_until_complete(guard({"type": kind, "method": method, "path": path, "headers": raw}, None, send))
    assert sent[0].get("status") == 200 or b"secret" not in b"".join(m.get("body", b"") for m in sent)
    return int(sent[0].get("status", sent[0].get("code", 0)))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
def test_every_route_but_health_is_401_without_the_key(guard: Any, method: str) -> None:
    for path in ROUTES:
        assert status(guard, method, path) == 401
        for wrong in ("", "Bearer", "Bearer ", "Bearer x", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY):
            assert status(guard, method, path, ("Authorization", wrong)) == 401


def test_health_answers_everybody_and_the_key_opens_the_rest(guard: Any) -> None:
    assert status(guard, "GET", "/health") == status(guard, "HEAD", "/health") == 200
    assert status(guard, "POST", "/health") == 401
    assert status(guard, "POST", "/v1/chat/completions", ("Authorization", f"Bearer {KEY}")) == 200
    twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
    assert status(guard, "POST", "/v1/chat/completions", *twice) == 401, "which of two counts is not for others to say"


def test_a_browser_may_ask_whether_it_may_ask(guard: Any) -> None:
    preflight = [("Origin", "http://localhost:3000"), ("Access-Control-Request-Method", "POST")]
    assert status(guard, "OPTIONS", "/v1/chat/completions", *preflight) == 200
    assert status(guard, "POST", "/v1/chat/completions", *preflight) == 401


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/x"])
def test_the_key_of_users_loads_no_adapter(guard: Any, path: str) -> None:
    key = ("Authorization", f"Bearer {KEY}")
    assert status(guard, "POST", path, key) == 403
    assert status(guard, "POST", path, key, ("X-Tunesmith-Loader", LOADER + "x")) == 403
    assert status(guard, "POST", path, ("X-Tunesmith-Loader", LOADER)) == 401
    assert status(guard, "POST", path, key, ("X-Tunesmith-Loader", LOADER)) == 200


def test_a_websocket_without_the_key_is_closed_before_it_opens(guard: Any) -> None:
    assert status(guard, "GET", "/v1/realtime", kind="websocket") == 1008


def test_a_server_without_a_key_does_not_start(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY")
    with pytest.raises(RuntimeError, match="answer everybody"):
        type(guard)(guard.app)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("rank", [0, 16])
def test_the_guard_stands_before_every_server_and_is_on_its_path(tmp_path: Path, device: str, rank: int) -> None:
    one = ServerSpec.model_validate(
        {"model_dir": str(tmp_path), "served_name": "m", "device": device, "max_lora_rank": rank}
    )
    (given,) = [word.partition("=")[2] for word in spec.arguments(one, 1) if word.startswith("--middleware=")]
    module, _, name = given.partition(".")
    folders = spec.environment(one, "vllm")["PYTHONPATH"].split(os.pathsep)
    assert f"class {name}:" in "".join(p.read_text() for f in folders for p in Path(f).glob(f"{module}.py"))
    assert not any(word.startswith("--middleware") for word in spec.engine_arguments(one)), "it changes no answer"


# --- whom the key is sent to


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    servers.stop_all(tmp_path / "home")


def start(home: Path, **options: Any) -> servers.Server:
    one = ServerSpec(model_dir=str(home.parent), served_name="base", max_lora_rank=16)
    return servers.start(home, one, vllm=STUB, log_path=home / "vllm.log", owner="s1", **options)


class Stranger(BaseHTTPRequestHandler):
    heard: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Stranger.heard.append(self.headers.get("Authorization", ""))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "base"}], "version": "1"}).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.heavy
def test_the_key_is_not_sent_to_a_stranger_on_the_port(home: Path) -> None:
    server = start(home)
    assert servers.healthy(server)
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: port_is_free(server.port))
    stranger = HTTPServer(("127.0.0.1", server.port), Stranger)
    threading.Thread(target=stranger.serve_forever, args=(0.02,), daemon=True).start()
    try:
        assert not servers.healthy(server) and Stranger.heard == []
    finally:
        stranger.shutdown()
        stranger.server_close()


def test_a_listener_is_ours_only_below_our_process() -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        port, me = mine.getsockname()[1], ProcessId.of(os.getpid())
        assert not Listener(port, me).is_ours(), "it does not listen yet"
        mine.listen()
        assert Listener(port, me).is_ours() and Listener(port, ProcessId.of(os.getppid())).is_ours()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            stranger = ProcessId.of(other.pid)
            assert not Listener(port, stranger).is_ours()
            other.kill()
        assert not Listener(port, stranger).is_ours()
        assert not Listener(port, replace(me, ticks=(me.ticks or 0) + 1)).is_ours(), "a pid that came back is another"


@pytest.mark.heavy
def test_the_key_that_loads_adapters_is_in_no_argument_and_no_environment_of_users(home: Path) -> None:
    server = start(home)
    assert len(server.loader_key) >= 32 and server.loader_key not in repr(server) and server.loader_key != server.key


# --- a server whose starter died


@pytest.mark.heavy
def test_a_server_whose_starter_was_killed_before_it_named_it_is_found_and_ended(home: Path) -> None:
    server = start(home)
    record = json.loads(server.record.read_text())
    named = ("pid", "pid_started", "boot_id", "pid_ticks", "host", "pid_namespace")
    server.record.write_text(json.dumps({name: value for name, value in record.items() if name not in named}))
    (found,) = servers.list_servers(home)
    assert found.pid == server.pid and found.process.ticks == ProcessId.of(server.pid).ticks
    servers.stop(found)
    assert servers.list_servers(home) == [] and list((home / "servers").iterdir()) == []


def test_the_record_of_a_server_that_never_came_to_be_is_taken_off_the_books(home: Path) -> None:
    (home / "servers").mkdir(parents=True)
    for suffix in (".json", ".key", ".lease"):
        (home / "servers" / f"1-a{suffix}").write_text("{}")
    assert servers.list_servers(home) == [] and (home / "servers" / "1-a.key").exists(), "it may be starting"
    old = time.time() - 120
    os.utime(home / "servers" / "1-a.json", (old, old))
    assert servers.list_servers(home) == [] and list((home / "servers").iterdir()) == []


@pytest.mark.heavy
def test_a_server_of_an_earlier_version_is_not_adopted(home: Path) -> None:
    first = start(home)
    record = json.loads(first.record.read_text())
    del record["loader_key"]
    first.record.write_text(json.dumps(record))
    again = servers.ensure(home, first.spec, vllm=STUB, log_path=home / "2.log", owner="s2")
    assert again.id != first.id and [server.id for server in servers.list_servers(home)] == [again.id]
