"""vLLM servers: started on the loopback address with a random key, known by a record, found again, and stopped.

A server is a record in HOME/servers beside a key that only its owner can read. It outlives the process that started
it and can be adopted by a later step whose description of it is equal; a lease ends it when nobody comes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.locks import Locked, lock_file, locked
from tunesmith.memory.places import Places
from tunesmith.tools.machine.gpus import server_environment
from tunesmith.tools.machine.processes import ProcessId, boot_id, python_module, stop_group
from tunesmith.tools.machine.vllm_program import kernels_of
from tunesmith.tools.models.chat_template import takes_system, without_system
from tunesmith.tools.serving import boot_unit, restarts
from tunesmith.tools.serving.budget import claim, gpus_once_free
from tunesmith.tools.serving.listeners import SendRefused, free_port
from tunesmith.tools.serving.local_http import HttpRefused, call
from tunesmith.tools.serving.restarts import port_is_free
from tunesmith.tools.serving.server_log import telling_line
from tunesmith.tools.serving.server_record import Server as Server
from tunesmith.tools.serving.server_record import ServerFacts as ServerFacts
from tunesmith.tools.serving.server_record import forget, named, placed, read
from tunesmith.tools.serving.spec import ServerSpec, arguments, environment, plugins_of

BENCH, DEPLOYED, DRIVER = "bench", "deployed", "driver"
LEASE_S = 300.0
"""A bench server that nobody used for so long is stopped by its own parent."""
RENEW_EVERY_S = 30.0
"""While it is used: an answer may take longer than a lease on a slow or busy machine."""
_READY_TIMEOUT_S = 600.0  # a large base is read from a cold disk, and graphs are compiled
_POLL_S = 0.2  # a start takes 16 s and more
_STARTING_S = 60.0  # between a record and the pid in it lie milliseconds, on a busy machine seconds


def list_servers(home: Path, *, role: str | None = None) -> list[Server]:
    """Servers on the books, the oldest first: those that run, and deployed ones that are down; dead others go."""
    running = []
    for record in sorted((home / "servers").glob("*.json")):
        server = read(record)
        if server is None:
            _forget_unfinished(record)
            continue
        if server.process.elsewhere:
            continue  # a container or machine that shares the home keeps its own books
        if server.role != DEPLOYED and not server.runs:
            forget(record)
        elif role in (None, server.role):
            running.append(server)
    return running


def _forget_unfinished(record: Path) -> None:
    """Take a record off the books whose server was never started, once nobody can be starting it any more."""
    with contextlib.suppress(OSError):  # gone just now: its starter wrote it, or took it off
        if time.time() - record.stat().st_mtime > _STARTING_S:
            forget(record)


def deployed(home: Path) -> list[Server]:
    """What is served to users; it may be down."""
    return list_servers(home, role=DEPLOYED)


def serving_now(home: Path, artifact: str) -> Server | None:
    """The server that serves this artifact to users."""
    return next((server for server in deployed(home) if server.facts.artifact == artifact), None)


def deployed_on(home: Path, port: int) -> bool:
    """Whether one of our deployments holds this port."""
    return any(server.port == port and server.runs for server in deployed(home))


def ensure(
    home: Path,
    spec: ServerSpec,
    *,
    vllm: str,
    log_path: Path,
    owner: str,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> Server:
    """A healthy bench server of this description: one that answers the same is adopted, else one is started.

    Other bench servers are stopped first: there is one accelerator, and one tenant at a time. An adopted one may know
    the weights by the name that another run gave them: requests ask for `server.model`.
    """
    for server in list_servers(home):
        same = server.spec == spec or (server.role == BENCH and server.spec.answers_as(spec))
        if same and server.loader_key and healthy(server):
            renew(server)
            return server
    stop_all(home, role=BENCH)
    return start(home, spec, vllm=vllm, log_path=log_path, owner=owner, on_wait=on_wait, may_fill_gpu=True)


def start(
    home: Path,
    spec: ServerSpec,
    *,
    vllm: str,
    log_path: Path,
    owner: str,
    port: int = 0,
    role: str = BENCH,
    key: str = "",
    lease_s: float = 0.0,
    on_wait: Callable[[float], None] = lambda seconds: None,
    timeout_s: float = _READY_TIMEOUT_S,
    may_fill_gpu: bool = False,
) -> Server:
    """Start a server and return it once it answers.

    Raises BadInput for a taken port, StepFailed where its GPU has no room or it ends early.
    `on_wait` is called with the seconds waited so far; `key` is a random one unless given. Where it `may_fill_gpu`, and
    no other server of this home is on it, it takes what is free.
    """
    if port and not port_is_free(port):
        raise BadInput(f"port {port} is in use by another program; choose another, or port=0 for a free one")
    port = port or free_port()
    alone = may_fill_gpu and not any(server.spec.device == "cuda" for server in list_servers(home))
    command = _command(vllm, spec, port, alone=alone)
    record = home / "servers" / f"{_next_number(home)}-{spec.hash[:8]}.json"
    data: dict[str, object] = {
        **placed(record, spec, log_path),
        "program": str(Path(vllm).absolute()) if "/" in vllm else vllm,  # it starts in a folder of its own
        **command,
        "port": port,
        "role": role,
        "lease_s": lease_s or LEASE_S,
        "owner": owner,
        "loader_key": secrets.token_urlsafe(32),  # a user's own key does not load adapters: they are files of this home
        "started_at": time.time(),
    }
    # What a record needs lies beside it before it is there; the parent reads it, then its own pid is added.
    atomic_write(record.with_suffix(".key"), key or secrets.token_urlsafe(32), mode=0o600)
    record.with_suffix(".lease").touch()
    atomic_write(record, json.dumps(data, indent=1), mode=0o600)  # it holds the key
    parent = _spawn(record, log_path)
    me = ProcessId.of(parent.pid)
    data |= named(me)
    atomic_write(record, json.dumps(data, indent=1), mode=0o600)  # it holds the key
    try:
        server = _wait_ready(record, parent, log_path, on_wait, timeout_s)
    except BaseException:  # a Ctrl-C while it is waited for, too: nobody else knows of the server yet
        stop_group(me)
        forget(record)
        raise
    engine = [f"vllm {_call(server, '/version')['version']}", kernels_of(vllm), *plugins_of(server.spec)]
    return _update(server, engine=", ".join(filter(None, engine)))


def _spawn(record: Path, log_path: Path) -> subprocess.Popen[bytes]:
    """Start the parent of the server that a record describes, in a session and a folder of its own."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    nothing = subprocess.DEVNULL
    with log_path.open("ab") as log:
        return subprocess.Popen(  # a session: no Ctrl-C of the terminal reaches it
            supervising(record), stdin=nothing, stdout=log, stderr=log, start_new_session=True, cwd=log_path.parent
        )


def supervising(record: Path) -> list[str]:
    """The command that becomes a server's parent."""
    return python_module("tunesmith.tools.serving.supervisor", str(record))


def _next_number(home: Path) -> int:
    """The time in milliseconds, or one more than any record's where the clock was set back: the newest comes last."""
    numbers = [path.name.partition("-")[0] for path in (home / "servers").glob("*.json")]
    return max([int(time.time() * 1000), *(int(number) + 1 for number in numbers if number.isdigit())])


def _command(
    vllm: str, spec: ServerSpec, port: int, adapters: Mapping[str, str] | None = None, *, alone: bool = False
) -> dict[str, object]:
    """What a record says of how a server is started now: its arguments, its environment, what it takes of a GPU."""
    gpus = gpus_once_free(spec.gpu_bytes, spec.cards) if spec.device == "cuda" else ()
    # What it takes now is no part of what it is: an equal one is adopted, however full the GPU is by then.
    gpu_claim = claim(spec, gpus, alone=alone)
    argv = arguments(spec, port, gpu_claim.arguments) + _loading(adapters or {})
    return {
        "argv": argv,
        "env": environment(spec, vllm) | server_environment(gpus, spec.cards),
        "gpu_bytes": gpu_claim.bytes,
    }


def _loading(adapters: Mapping[str, str]) -> list[str]:
    """Arguments that load adapters at the start."""
    return [f"--lora-modules={json.dumps({'name': name, 'path': path})}" for name, path in adapters.items()]


def _wait_ready(
    record: Path, parent: subprocess.Popen[bytes], log: Path, on_wait: Callable[[float], None], timeout_s: float
) -> Server:
    started = time.monotonic()
    server = read(record)
    assert server is not None
    while (waited := time.monotonic() - started) < timeout_s:
        if parent.poll() is not None or restarts.read(record).why:
            raise StepFailed(f"vLLM ended before it was ready: {telling_line(log)}; its log is {log}")
        if healthy(server):
            return server
        renew(server)
        on_wait(waited)
        time.sleep(_POLL_S)
    raise StepFailed(f"vLLM was not ready after {timeout_s:.0f} s; its log is {log}")


def healthy(server: Server) -> bool:
    """Whether the server answers, under our key and with our model: another program on the port is not even asked:
    the guard of every connection sees to that."""
    try:
        names = _model_names(server)
    except (OSError, ValueError, KeyError, TypeError, SendRefused):  # not up yet, or what answers is no vLLM
        return False
    return server.model in names


def _model_names(server: Server) -> list[str]:
    """What it serves now. Raises OSError, and ValueError for an answer that names nothing."""
    listed = _call(server, "/v1/models").get("data")
    if not isinstance(listed, list):
        raise ValueError(f"{server.url} lists no models")
    return [str(model["id"]) for model in listed]


def _call(
    server: Server, path: str, body: Mapping[str, object] | None = None, *, timeout_s: float = 5
) -> Mapping[str, object]:
    """The JSON object that it answers with, soon, however busy. Raises OSError, and ValueError for anything else."""
    answer = call(server.listener, path, server.key, body, timeout_s=timeout_s)
    if not isinstance(answer, dict):
        raise ValueError(f"{server.url}{path} answered with {str(answer)[:100]!r}")
    return answer


def renew(server: Server) -> None:
    """Extend a server's lease from now."""
    with contextlib.suppress(OSError):  # it was stopped just now
        os.utime(server.record.with_suffix(".lease"))


@contextlib.contextmanager
def lease(server: Server) -> Iterator[None]:
    """Keep a server's lease from running out while it is used, however long it takes to answer.

    It ends LEASE_S after the last use, and as long after a process that was killed in the middle of one.
    """
    ended = threading.Event()

    def renewing() -> None:
        while not ended.wait(RENEW_EVERY_S):  # a lease outlives some of these
            renew(server)

    renew(server)
    thread = threading.Thread(target=renewing, name="lease", daemon=True)  # a user that dies renews no more
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # a last renewal of its own would come after ours
        renew(server)


def _update(server: Server, **changes: object) -> Server:
    data = {**json.loads(server.record.read_text()), **changes}
    atomic_write(server.record, json.dumps(data, indent=1), mode=0o600)  # it holds the server's key
    updated = read(server.record)
    assert updated is not None
    return updated


def promote(server: Server, facts: ServerFacts | None = None, adapter: Path | None = None) -> Server:
    """Make a bench server the deployed one: its lease no longer ends, and it comes back after a crash and a boot.

    `adapter`: the folder of what is loaded under the model's name; it is loaded again whenever the engine starts.
    """
    facts = facts or ServerFacts()
    home, adapters = server.record.parent.parent, {facts.model: str(adapter)} if adapter else {}
    data = json.loads(server.record.read_text())
    launch = {"argv": [*data.get("argv", ()), *_loading(adapters)], "adapters": Places(home).stored(adapters)}
    promoted = _update(server, role=DEPLOYED, meta=asdict(facts), **launch)
    boot_unit.enable(home)
    return promoted


def down(home: Path) -> list[Server]:
    """What is deployed and not at work: after a boot, or where its parent was killed. Not what was given up.

    A row of crashes is forgiven by a boot, a lost port is not.
    """
    stopped = []
    for server in deployed(home):
        happened, since_boot = server.restarts, server.process.boot_id == boot_id()
        if not server.runs and not happened.port_lost and not (happened.gave_up and since_boot):
            stopped.append(server)
    return stopped


def bring_back(home: Path) -> list[tuple[Server, str]]:
    """Start what is down again, each at its own address and with its own key; with why not, where one cannot be.

    Nobody waits for it here. Another terminal that does the same at the same time is left to it.
    """
    attempts: list[tuple[Server, str]] = []
    if not down(home):
        return attempts
    with contextlib.suppress(Locked), locked(lock_file(home, "servers")):  # another terminal is at it
        for server in down(home):
            why_not = renew_record(server)
            if not why_not:
                parent = _spawn(server.record, server.log)
                _update(server, **named(ProcessId.of(parent.pid)))
            attempts.append((server, why_not))
    return attempts


def renew_record(server: Server) -> str:
    """Write a server's record anew for the machine as it is now, before its parent starts; why not, or nothing."""
    happened, record = server.restarts, server.record
    if not port_is_free(server.port):
        lost = happened.without_port(server.port)
        restarts.write(record, lost)
        return lost.gave_up
    data = json.loads(record.read_text())
    if "program" not in data:  # of a version whose deployments did not come back
        forget(record)
        return "an earlier version of tunesmith deployed it"
    adapters = Places(record.parent.parent).present(data.get("adapters", {}))
    command = _command(data["program"], server.spec, server.port, adapters)
    restarts.write(record, replace(happened, in_a_row=0, gave_up="", why=""))
    record.with_suffix(".pid").unlink(missing_ok=True)  # of the supervisor before; the next one writes its own
    _update(server, **command)
    return ""


def load_adapter(server: Server, name: str, folder: Path) -> None:
    """Load a LoRA adapter into a running server, so that requests can ask for it by `name`. Raises StepFailed.

    A name that is loaded already is left as it is: name an adapter by its artifact.
    """
    if name in _model_names(server):
        return
    try:
        adapter = {"lora_name": name, "lora_path": str(folder)}
        path = "/v1/load_lora_adapter"
        # 120 s: weights of an adapter of gigabytes are read in it, behind what is being answered.
        call(server.listener, path, server.key, adapter, timeout_s=120, loader_key=server.loader_key)
    except HttpRefused as error:
        reason = error.text[:300]  # a server's page, maybe
        raise StepFailed(f"vLLM refused the adapter {folder}: {reason}; its log is {server.log}") from error


def template_tokens(server: Server, messages: Sequence[Mapping[str, object]]) -> list[int]:
    """Token ids that the server's own chat template makes of a conversation, ready for an answer."""
    asked = messages if takes_system(Path(server.spec.model_dir)) else without_system(messages)
    body = {"model": server.model, "messages": asked, "add_generation_prompt": True}
    tokens = _call(server, "/tokenize", body, timeout_s=60)["tokens"]  # behind many prompts
    if not isinstance(tokens, list):
        raise ValueError(f"{server.url} answered without tokens")
    return tokens


def stop(server: Server) -> None:
    """Stop a server and whatever it started. Raises StepFailed where it still listens afterwards."""
    was_running, home = server.runs, server.record.parent.parent
    stop_group(server.process, grace_s=20)  # as the supervisor gives vLLM
    forget(server.record)
    if server.role == DEPLOYED and not deployed(home):
        boot_unit.disable(home)
    for _ in range(50):  # 5 s: the kernel closes the sockets of a large process only once its memory is gone
        if not was_running or port_is_free(server.port):
            return
        time.sleep(0.1)  # soon seen, and no load
    raise StepFailed(f"something still listens on port {server.port} after {server.id} was stopped (pid {server.pid})")


def stop_all(home: Path, *, role: str | None = None) -> list[Server]:
    """Stop the servers of a role, or all; the stopped ones are returned."""
    servers = list_servers(home, role=role)
    for server in servers:
        stop(server)
    return servers
