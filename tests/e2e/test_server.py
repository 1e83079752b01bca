"""The real vLLM under the finished demo's base and adapter: both arms on one server, neither touched by the other."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.demo_run import Demo
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.serving.scoring import score_prompts
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.spec import ServerSpec

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

TICKETS = [
    "Triage this support ticket:\n\nmy parcel 48213 is two weeks late and nobody answers",
    "Triage this support ticket:\n\nI was charged twice for order #70125, please refund one",
    "Triage this support ticket:\n\ncannot log in since the update, the reset mail never comes",
    "Triage this support ticket:\n\nthe lamp from ord. 90417 flickers, how do I send it back?",
]


@pytest.fixture(scope="module")
def served(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own with the demo's base, its adapter loaded while it runs; the first that this machine ever had,
    as far as vLLM and PyTorch can tell."""
    home = tmp_path_factory.mktemp("servers")
    with sqlite3.connect(demo.home / "tunesmith.db") as db:
        paths = dict(db.execute("SELECT kind, path FROM artifacts WHERE kind IN ('base', 'adapter')"))
    vllm = find_vllm(None)
    assert vllm
    spec = ServerSpec(model_dir=paths["base"], served_name="base", max_lora_rank=16)
    with pytest.MonkeyPatch.context() as new_machine:
        new_machine.setenv("VLLM_CACHE_ROOT", str(home / "vllm"))
        new_machine.setenv("TORCHINDUCTOR_CACHE_DIR", str(home / "compiled"))
        server = servers.start(home, spec, vllm=vllm, log_path=home / "vllm.log", owner="test")
    try:
        servers.load_adapter(server, "adapter", Path(paths["adapter"]))
        yield server
    finally:
        servers.stop_all(home)


def test_its_norms_are_vllms_own_kernels(served: Server) -> None:
    log = served.log.read_text()
    assert "rms_norm=['tunesmith', 'native'], fused_add_rms_norm=['tunesmith', 'native']" in log
    assert "tunesmith: this vLLM's" not in log and "tunesmith_vllm 2" in served.engine


def test_its_engine_is_a_fork_that_imports_nothing_again(served: Server) -> None:
    assert served.log.read_text().count("Triton is installed, but") == 1


def test_the_first_server_of_a_machine_starts_no_other_python_and_compiles_nothing(served: Server) -> None:
    """Log probabilities are what vLLM would compile a function for: half a minute, and a compiler has to be there."""
    [vllm] = psutil.Process(served.pid).children()
    assert list((served.log.parent / "vllm" / "modelinfos").iterdir()), "or it did not look at the model"
    assert vllm.cpu_times().children_user < 1.0, "seconds of processes that it waited for"
    [[_, *told]] = asyncio.run(score_prompts(served, "base", [([5, 6, 7, 8], 3)], concurrency=1))
    assert all(one and len(one.likeliest) in (3, 4) for one in told)
    assert not [file for file in (served.log.parent / "compiled").rglob("*") if file.is_file()]


def ask(server: Server, *models: str) -> dict[str, list[str]]:
    """Answers to every ticket by each of `models`, all in flight at once."""
    found: dict[str, ChatResponse] = {}

    async def go() -> None:
        async with ChatClient(server.url, server.key) as chat:
            requests = [
                ChatRequest(f"{model} {number}", model, [{"role": "user", "content": ticket}], max_tokens=64)
                for number, ticket in enumerate(TICKETS)
                for model in models
            ]
            await chat.complete_many(requests, concurrency=64, on_result=lambda r: found.update({r.id: r}))

    asyncio.run(go())
    assert not [r.error for r in found.values() if r.error]
    return {model: [found[f"{model} {number}"].text for number in range(len(TICKETS))] for model in models}


def is_triage(text: str) -> bool:
    try:
        return list(json.loads(text)) == ["category", "urgency", "order", "summary"]
    except ValueError:
        return False


def test_base_requests_beside_adapter_requests_stay_the_base(served: Server) -> None:
    both = ask(served, "base", "adapter")
    assert not any(is_triage(text) for text in both["base"])
    assert sum(is_triage(text) for text in both["adapter"]) >= len(TICKETS) - 1


def test_an_adapter_cannot_be_loaded_without_the_key(served: Server) -> None:
    body = json.dumps({"lora_name": "other", "lora_path": served.spec.model_dir}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer wrong"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{served.url}/v1/load_lora_adapter", body, headers))
    assert refused.value.code == 401


def test_it_listens_on_the_loopback_address_only(served: Server) -> None:
    processes = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
