"""A deployed server comes back: after a crash by its parent, after a boot by systemd or the next start of tunesmith."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.tools.serving.test_servers import gone, spec_of, start, tree, until
from tests.tools.serving.test_servers import model as model
from tunesmith.agent.commands import served_models
from tunesmith.memory.store import Store
from tunesmith.tools.export.deploy import DeployRequest, port_to_serve_on
from tunesmith.tools.serving import boot_unit, restarts, servers
from tunesmith.tools.serving.restarts import LONGEST_S, MOST_IN_A_ROW, STEADY_S, Restarts
from tunesmith.tools.serving.servers import Server, ServerFacts

# --- how often


def test_restarts_wait_longer_each_time_and_end_after_a_row_of_them() -> None:
    happened, waits = Restarts(), list[float]()
    while not (happened := happened.after(STEADY_S - 1, "SIGKILL ended vLLM")).gave_up:
        waits.append(happened.wait_s)
    assert len(waits) == MOST_IN_A_ROW and waits == sorted(waits) and len({*waits}) == len(waits)
    assert happened.count == MOST_IN_A_ROW and happened.gave_up.startswith(f"{MOST_IN_A_ROW + 1} times in a row")
    for _ in range(1000):  # once a day for years
        happened = Restarts(happened.count, happened.in_a_row).after(STEADY_S, "exit code 1")
        assert not happened.gave_up and happened.wait_s == waits[0]
    assert Restarts(in_a_row=60).wait_s == LONGEST_S


def test_what_is_written_down_is_read_again_and_nonsense_is_nothing(tmp_path: Path) -> None:
    record = tmp_path / "1-a.json"
    happened = Restarts(3, 2, "exit code 1", "it ended", port_lost=True)
    restarts.write(record, happened)
    assert restarts.read(record) == happened
    for text in ("", "[]", "{", '{"count": 2, "of_later": 1}'):
        restarts.file_of(record).write_text(text)
        assert restarts.read(record) in (Restarts(), Restarts(2))


# --- the parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose servers are started again at once."""
    at_once = tmp_path / "sitecustomize.py"
    at_once.write_text("from tunesmith.tools.serving import restarts\nrestarts.FIRST_S = 0.01\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield tmp_path / "home"
    servers.stop_all(tmp_path / "home")


def deploy(home: Path, model: Path, **facts: str) -> Server:
    return servers.promote(start(home, spec_of(model)), ServerFacts("a7", "merged", "", "base", **facts))


def engine(server: Server) -> psutil.Process:
    """The program below its parent, or nothing between two."""
    return psutil.Process(server.pid).children()[0]


def kill_engine(server: Server) -> int:
    for process in (victim := engine(server)).children():
        process.kill()
    victim.kill()
    return victim.pid


def back(server: Server, killed: int = 0) -> bool:
    try:
        return engine(server).pid != killed and servers.healthy(server)
    except (psutil.NoSuchProcess, IndexError):
        return False


@pytest.mark.heavy
def test_an_engine_that_is_killed_answers_again_at_the_same_address_with_the_same_key(home: Path, model: Path) -> None:
    store, server = Store(home), deploy(home, model)
    key, address = server.key, server.url
    for times in (1, 2):
        killed = kill_engine(server)
        assert until(lambda killed=killed: back(server, killed))
        [now] = servers.deployed(home)
        assert (now.key, now.url, now.pid, now.facts) == (key, address, server.pid, server.facts)
        assert now.restarts.count == times and "SIGKILL" in now.restarts.why
        [line] = served_models.status(store)
        assert (line["restarts"], line["down"], line["healthy"]) == (times, "", True)


@pytest.mark.heavy
def test_the_adapter_that_is_deployed_is_loaded_again(home: Path, model: Path, tmp_path: Path) -> None:
    server = start(home, spec_of(model))
    servers.load_adapter(server, "adapter-a7", tmp_path)
    server = servers.promote(server, ServerFacts("a7", "adapter", "", "adapter-a7"), adapter=tmp_path)
    killed = kill_engine(server)
    assert until(lambda: back(server, killed))
    servers.load_adapter(server, "adapter-a7", tmp_path / "missing")  # it is there already


@pytest.mark.heavy
def test_an_engine_that_always_ends_is_given_up_with_its_own_reason(home: Path, model: Path) -> None:
    store, server = Store(home), deploy(home, model)
    (model / "fails").touch()
    kill_engine(server)
    assert until(lambda: not server.runs)
    [line] = served_models.status(store)
    assert line["restarts"] == MOST_IN_A_ROW and line["pid"] is None
    for words in (
        "is not started again",
        "6 times in a row",
        "CUDA error: an illegal memory access",
        "tunesmith deploy",
    ):
        assert words in str(line["down"])
    assert served_models.bring_back(store) == [] and not servers.deployed(home)[0].runs, "not before the next boot"


@pytest.mark.heavy
def test_after_a_stop_nothing_comes_back(home: Path, model: Path) -> None:
    store, server = Store(home), deploy(home, model)
    processes_ = tree(server)
    served_models.stop(store)
    assert gone(processes_) and served_models.bring_back(store) == [] == servers.list_servers(home)
    assert list((home / "servers").iterdir()) == []


@pytest.mark.heavy
def test_a_stop_between_two_engines_ends_the_parent(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")  # it waits 2 s
    server = deploy(home, model)
    (model / "fails").touch()
    kill_engine(server)
    assert until(lambda: bool(server.restarts.why))
    servers.stop(server)
    assert not server.process.alive() and servers.list_servers(home) == []


@pytest.mark.heavy
def test_a_measuring_server_is_not_started_again(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    kill_engine(server)
    assert until(lambda: servers.list_servers(home) == []) and not server.process.alive()


@pytest.mark.heavy
def test_a_port_that_another_program_took_ends_the_restarts(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    store, server = Store(home), deploy(home, model)
    killed = engine(server)
    os.kill(server.pid, signal.SIGSTOP)
    kill_engine(server)
    with socket.socket() as other:
        assert until(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        os.kill(server.pid, signal.SIGCONT)
        assert until(lambda: not server.runs)
    assert "another program has port" in str(served_models.status(store)[0]["down"])
    assert server.restarts.port_lost and servers.down(home) == []


# --- a boot


def booted(server: Server) -> None:
    """As everything is after a power cut: the record of another boot, and no process."""
    processes_ = tree(server)
    os.killpg(server.pid, signal.SIGKILL)
    assert until(lambda: gone(processes_)), "the engine's socket goes with its process"
    for path in (server.record, server.record.with_suffix(".pid")):
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "an-earlier-boot"}))


@pytest.mark.heavy
def test_the_next_start_brings_back_what_was_deployed_once(home: Path, model: Path, tmp_path: Path) -> None:
    store, server = Store(home), start(home, spec_of(model))
    server = servers.promote(server, ServerFacts("a7", "adapter", "", "adapter-a7"), adapter=tmp_path)
    key = server.key
    booted(server)
    assert not servers.deployed(home)[0].runs and "next start" in str(served_models.status(store)[0]["down"])
    [line] = served_models.bring_back(store)
    assert server.url in line
    [now] = servers.deployed(home)
    assert until(lambda: servers.healthy(now))
    assert (now.id, now.key, now.url, now.runs) == (server.id, key, server.url, True)
    servers.load_adapter(now, "adapter-a7", tmp_path / "missing")
    assert served_models.bring_back(store) == []
    again = subprocess.run(servers.supervising(now.record), timeout=60)
    assert (again.returncode, servers.deployed(home)[0].pid) == (0, now.pid), "there is one parent for one server"
    assert store.read("SELECT 1 FROM events WHERE event = 'server.brought_back'")


@pytest.mark.heavy
def test_a_row_of_crashes_is_forgiven_by_a_boot_and_a_lost_port_is_not(home: Path, model: Path) -> None:
    server = deploy(home, model)
    booted(server)
    for happened, comes in ((Restarts(gave_up="x", port_lost=True), []), (Restarts(gave_up="x"), [server.id])):
        restarts.write(server.record, happened)
        assert [one.id for one in servers.down(home)] == comes
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        [(_, why_not)] = servers.bring_back(home)
        assert port_to_serve_on(DeployRequest(), servers.deployed(home)) == 0, "the next one answers elsewhere"
    assert port_to_serve_on(DeployRequest(), servers.deployed(home)) == server.port
    assert "may have been sent the key" in why_not and servers.bring_back(home) == []


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that only writes down what it was asked, for a user whose services systemd keeps."""
    said, program = tmp_path / "systemctl-said", tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "run" / str(os.getuid()) / "systemd").mkdir(parents=True)
    monkeypatch.setattr(boot_unit, "_RUNTIME", tmp_path / "run")
    return said


@pytest.mark.heavy
def test_a_unit_is_enabled_with_a_deployment_and_goes_with_the_last_one(
    home: Path, model: Path, systemctl: Path
) -> None:
    server, unit = deploy(home, model), boot_unit.unit_file(home)
    assert systemctl.read_text().split("\n")[:-1] == [f"--user enable {unit}"]
    assert "with your login" in boot_unit.how_it_comes_back(home)
    booted(server)
    [command] = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    words = [word.strip('"') for word in command.removeprefix("ExecStart=").split('" "')]
    started = subprocess.Popen(words, start_new_session=True, env={"PATH": os.environ["PATH"]})  # as systemd does
    try:
        assert until(
            lambda: servers.deployed(home)[0].pid == started.pid and servers.healthy(servers.deployed(home)[0])
        )
        assert subprocess.run(words, timeout=60).returncode == 0, "it runs already"
        servers.stop_all(home)
        assert started.wait(60) is not None
    finally:
        started.kill()
    assert systemctl.read_text().splitlines()[-1] == f"--user disable {unit.name}" and not unit.exists()


def test_the_unit_starts_again_what_crashed_but_not_what_was_given_up(tmp_path: Path) -> None:
    home = tmp_path / 'a "home" of 5 % and $PATH'
    lines = boot_unit.unit_text(home).splitlines()
    assert {"Restart=on-failure", f"RestartPreventExitStatus={restarts.GAVE_UP}", "WantedBy=default.target"} <= {*lines}
    [command] = [line for line in lines if line.startswith("ExecStart=")]
    assert command.endswith('/a \\"home\\" of 5 %% and $$PATH"') and f'"{sys.executable}"' in command
    assert not any("key" in line.lower() for line in lines)


def test_without_systemd_nothing_is_written_and_the_next_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_unit, "_RUNTIME", tmp_path / "nobody")
    assert not boot_unit.enable(tmp_path / "home") and not (tmp_path / "home").exists()
    assert "when tunesmith is started" in boot_unit.how_it_comes_back(tmp_path / "home")
