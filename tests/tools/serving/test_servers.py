"""Servers as processes: found again, adopted, leased, stopped whole; and how a description becomes a command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.stub_chat import ENGINE_FAILED
from tests.fixtures.tables import table
from tests.fixtures.waiting import HANG_S
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.tools.machine.vllm_program import kernels_of
from tunesmith.tools.serving import servers, spec
from tunesmith.tools.serving.model_server import key_of
from tunesmith.tools.serving.restarts import port_is_free
from tunesmith.tools.serving.server_log import telling_line
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.spec import ServerSpec
from tunesmith.tools.serving.supervisor import preloads
from tunesmith.tools.suites.case import Suite

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_vllm.py")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"dtype": "bfloat16"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    servers.stop_all(tmp_path / "home")


def spec_of(model: Path, **changes: object) -> ServerSpec:
    return ServerSpec.model_validate({"model_dir": str(model), "served_name": "base", "max_lora_rank": 16, **changes})


def start(home: Path, one: ServerSpec, **options: object) -> Server:
    return servers.start(home, one, vllm=STUB, log_path=home / "vllm.log", owner="s1", **options)  # type: ignore[arg-type]


def tree(server: Server) -> list[psutil.Process]:
    root = psutil.Process(server.pid)
    return [root, *root.children(recursive=True)]


def until(condition: Callable[[], bool], seconds: float = HANG_S) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


# --- the command line


def test_the_key_is_in_no_argument_and_in_no_readable_file(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    assert len(server.key) >= 32
    assert not any(server.key in word for process in tree(server) for word in process.cmdline())
    for path in home.rglob("*"):
        if path.is_file() and server.key in path.read_text():
            assert path == server.key_file
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_server_binds_the_loopback_address_only(model: Path) -> None:
    argv = spec.arguments(spec_of(model), 8000)
    assert argv[argv.index("--host") + 1] == "127.0.0.1"


def test_adapters_can_be_loaded_only_where_they_were_allowed(model: Path) -> None:
    allowed, none = spec_of(model), spec_of(model, max_lora_rank=0)
    assert "--enable-lora" in spec.arguments(allowed, 1) and "--enable-lora" not in spec.arguments(none, 1)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in spec.environment(none, "vllm")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_is_fetched_or_reported_while_serving(model: Path, device: str) -> None:
    environment = spec.environment(spec_of(model, device=device), "vllm")
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"


def test_cpu_settings_stay_on_the_cpu(model: Path) -> None:
    cuda = spec_of(model, device="cuda")
    assert not [name for name in spec.environment(cuda, "vllm") if "CPU" in name]
    assert spec.environment(cuda, "vllm")["PYTHONPATH"] == str(spec.GUARD)
    assert not {"--enforce-eager", "--no-enable-chunked-prefill"} & {*spec.arguments(cuda, 1)}


def test_the_plugin_is_where_vllm_is_told_to_look(model: Path) -> None:
    *_, folder = map(Path, spec.environment(spec_of(model), "vllm")["PYTHONPATH"].split(os.pathsep))
    [points] = folder.glob("*.dist-info/entry_points.txt")
    module, _, function = points.read_text().split("=")[-1].strip().partition(":")
    assert f"def {function}(" in (folder / f"{module}.py").read_text()


@pytest.mark.parametrize(
    "change", [{"max_model_len_tokens": 4096}, {"weights_sha256": "0" * 64}, {"max_lora_rank": 32}]
)
def test_another_description_is_another_server(model: Path, change: dict[str, object]) -> None:
    assert spec_of(model).hash != spec_of(model, **change).hash


def test_an_unknown_setting_is_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        spec_of(model, trust_remote_code=True)


def test_kernels_are_read_beside_the_program(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("torch-2.13.0+cpu", "zentorch-2.13.0.1", "tqdm-4.1"):
        (site / f"{name}.dist-info").mkdir(parents=True)
    assert kernels_of(str(tmp_path / "bin" / "vllm")) == "torch 2.13.0+cpu, zentorch 2.13.0.1"
    assert kernels_of("/nowhere/bin/vllm") == ""


# --- comparability


def test_arms_on_servers_that_differ_in_their_model_alone_differ_in_nothing_else(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    one, other = (key_of(server, Artifact("a1", "r1", "s1", "base", model, of, 1), Suite(cases=())) for of in "ab")
    assert {name for name in one if one[name] != other[name]} == {"weights"}
    assert str(model) not in json.dumps(one) and str(server.port) not in json.dumps(one)


# --- start


def test_a_server_that_ends_early_is_told_with_its_own_reason_and_leaves_nothing(home: Path, model: Path) -> None:
    with pytest.raises(StepFailed, match=r"too large: 31\.2 GiB"):
        start(home, spec_of(model, served_name="dies"))
    assert servers.list_servers(home) == [] and list((home / "servers").iterdir()) == []


@table(
    "cause",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.6 GiB",
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
        "ValueError: Free memory on device cuda:0 (3.1/24.0 GiB) on startup is less than desired",
    ],
)
def test_the_engines_own_error_is_told_and_not_its_parents(tmp_path: Path, cause: str) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(ENGINE_FAILED.format(cause=cause))
    assert telling_line(log) == cause
    died = "(APIServer pid=7) vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."
    log.write_text(f"{ENGINE_FAILED.format(cause=cause)}{died}\n")
    assert telling_line(log) == cause
    log.write_text(f"INFO starting\n{died}\n")
    assert "EngineDeadError" in telling_line(log), "it is all there is"


def test_a_server_that_a_signal_ended_is_told_by_its_name(home: Path, model: Path, tmp_path: Path) -> None:
    """As a kernel does that the processor cannot carry out: vLLM itself says nothing then."""
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\nkill -ILL $$\n")
    program.chmod(0o755)
    with pytest.raises(StepFailed, match=r"vLLM ended before it was ready: tunesmith: SIGILL ended vLLM \(Illegal"):
        servers.start(home, spec_of(model), vllm=str(program), log_path=home / "vllm.log", owner="s1")


def test_a_taken_port_is_refused_before_anything_starts(home: Path, model: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BadInput, match=str(other.getsockname()[1])):
            start(home, spec_of(model), port=other.getsockname()[1])
    assert not (home / "servers").exists()


def test_a_server_that_is_never_ready_is_stopped(home: Path, model: Path, tmp_path: Path) -> None:
    sleeper = tmp_path / "vllm"
    sleeper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    sleeper.chmod(0o755)
    waited: list[float] = []
    with pytest.raises(StepFailed, match="not ready after 1 s"):
        servers.start(
            home,
            spec_of(model),
            vllm=str(sleeper),
            log_path=home / "log",
            owner="s1",
            timeout_s=1,
            on_wait=waited.append,
        )
    assert waited and not [p for p in psutil.process_iter(["cmdline"]) if str(sleeper) in (p.info["cmdline"] or [])]


# --- found again


def test_an_equal_server_is_adopted_and_another_one_replaces_it(home: Path, model: Path) -> None:
    def ensure(one: ServerSpec) -> Server:
        return servers.ensure(home, one, vllm=STUB, log_path=home / "log", owner="s2")

    first = ensure(spec_of(model))
    assert ensure(spec_of(model)).pid == first.pid
    processes = tree(first)
    second = ensure(spec_of(model, max_num_seqs=8))
    assert second.pid != first.pid and gone(processes)
    assert [server.id for server in servers.list_servers(home)] == [second.id]


def test_one_that_has_the_weights_under_another_runs_name_is_adopted_too(home: Path, model: Path) -> None:
    first = start(home, spec_of(model, weights_sha256="a" * 64, served_name="base-a1"))
    wanted = spec_of(model, weights_sha256="a" * 64, served_name="base-a9", model_dir=f"{model}/../model")
    adopted = servers.ensure(home, wanted, vllm=STUB, log_path=home / "log", owner="s2")
    assert (adopted.pid, adopted.model) == (first.pid, "base-a1")


@table("change", [{"weights_sha256": "b" * 64}, {"weights_sha256": ""}, {"max_lora_rank": 0}, {"max_num_seqs": 8}])
def test_another_engine_and_unknown_weights_do_not_answer_as_it_does(model: Path, change: dict[str, object]) -> None:
    one, other = (spec_of(model, **{"weights_sha256": "a" * 64} | change) for change in ({}, change))
    assert not one.answers_as(other) and not other.answers_as(one)
    assert not spec_of(model).answers_as(spec_of(model))


def test_a_deployed_server_is_not_replaced_by_a_measurement(home: Path, model: Path) -> None:
    deployed = servers.promote(start(home, spec_of(model)), servers.ServerFacts("a7"))
    servers.ensure(home, spec_of(model, max_num_seqs=8), vllm=STUB, log_path=home / "log", owner="s2")
    assert servers.deployed(home) == [deployed] and servers.healthy(deployed)


def test_a_dead_server_is_off_the_books(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    for process in tree(server):
        process.kill()
    assert until(lambda: servers.list_servers(home) == [])
    assert list((home / "servers").iterdir()) == []


def test_a_record_whose_pid_belongs_to_another_process_is_no_server(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    record = json.loads(server.record.read_text())
    servers.stop(server)
    server.record.write_text(json.dumps({**record, "pid": os.getpid()}))
    assert servers.list_servers(home) == []
    assert psutil.pid_exists(os.getpid())


def test_a_server_stays_on_the_books_when_the_clock_is_set(home: Path, model: Path) -> None:
    server = servers.promote(start(home, spec_of(model)), servers.ServerFacts("a7"))
    record = json.loads(server.record.read_text())
    server.record.write_text(json.dumps({**record, "pid_started": record["pid_started"] - 3600}))
    assert [found.id for found in servers.deployed(home)] == [server.id]
    servers.stop_all(home)
    assert port_is_free(server.port)


def test_a_record_of_an_earlier_version_is_still_a_server(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    record = json.loads(server.record.read_text())
    del record["pid_ticks"]
    server.record.write_text(json.dumps(record))
    assert [found.id for found in servers.list_servers(home)] == [server.id]


def test_another_program_on_the_port_is_not_taken_for_ours(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    server.key_file.write_text("another key")
    assert not servers.healthy(server)


# --- its end


def test_stopping_leaves_no_process_no_listener_and_no_key(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    processes = tree(server)
    assert len(processes) >= 3  # its parent, vllm, and vllm's engine
    servers.stop(server)
    assert gone(processes) and port_is_free(server.port)
    assert list((home / "servers").iterdir()) == []


def test_a_server_whose_lease_ran_out_stops_by_itself(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LEASE_S", 6.0)  # a thread that renews it may wait for its turn on a busy machine
    monkeypatch.setattr(servers, "RENEW_EVERY_S", 0.1)
    server = start(home, spec_of(model))
    processes = tree(server)
    with servers.lease(server):
        time.sleep(7)  # used for longer than its lease, without one answer
        assert servers.healthy(server)
    assert until(lambda: gone(processes)) and port_is_free(server.port)


def test_a_lease_does_not_run_out_when_the_clock_is_set(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    an_hour_ago = time.time() - 3600
    os.utime(server.record.with_suffix(".lease"), (an_hour_ago, an_hour_ago))  # as it looks after the step
    time.sleep(3)
    assert servers.healthy(server)


def test_a_deployed_server_has_no_lease(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LEASE_S", 3.0)
    server = servers.promote(start(home, spec_of(model)))
    time.sleep(4.0)
    assert servers.healthy(server)


def test_a_server_taken_off_the_books_stops_by_itself(home: Path, model: Path) -> None:
    server = start(home, spec_of(model))
    processes = tree(server)
    server.record.unlink()
    assert until(lambda: gone(processes))


@pytest.mark.parametrize("victim", [0, 1], ids=["parent", "vllm"])
def test_no_part_of_a_server_outlives_another(home: Path, model: Path, victim: int) -> None:
    processes = tree(start(home, spec_of(model)))
    os.kill(processes[victim].pid, signal.SIGKILL)
    watched = processes if victim else processes[:2]  # the stub, unlike vLLM, does not take its engine along
    assert until(lambda: gone(watched))
    for process in processes:
        if process.is_running():
            process.kill()


# --- adapters and tokens


def test_an_adapter_is_loaded_once_and_a_refused_one_says_why(home: Path, model: Path, tmp_path: Path) -> None:
    server = start(home, spec_of(model))
    servers.load_adapter(server, "adapter-a1", tmp_path)
    servers.load_adapter(server, "adapter-a1", tmp_path)
    with pytest.raises(StepFailed, match="No adapter found"):
        servers.load_adapter(server, "adapter-a2", tmp_path / "missing")


def test_tokens_come_from_the_servers_own_template(home: Path, model: Path) -> None:
    assert servers.template_tokens(start(home, spec_of(model)), [{"role": "user", "content": "four"}]) == [4]


def test_what_a_user_loads_first_stays_and_there_is_one_openmp() -> None:
    assert preloads("/a/libgomp.so.1", "/b/libtcmalloc.so") == "/a/libgomp.so.1:/b/libtcmalloc.so"
    assert preloads("/a/libgomp.so.1", "/b/libiomp5.so") == "/b/libiomp5.so"
    assert preloads("", "/b/libtcmalloc.so") == "/b/libtcmalloc.so"
