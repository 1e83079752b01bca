"""The real vLLM under a deployed adapter: both arms on one server, neither touched by the other, and its end.

The last test stops the server, which the tests of this folder share.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.fixtures.demo_run import HANG_S, as_json, tunesmith
from tests.fixtures.open_gate import PYTHONS, Served
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.scoring import score_prompt

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.xdist_group("served"), pytest.mark.timeout(HANG_S)]

TEXTS = [list(range(start, start + 40)) for start in (300, 1000, 2500, 7000)]
"""Tokens of the bundled model, in an order that nobody writes."""


def test_its_norms_are_vllms_own_kernels(served: Served) -> None:
    log = served.server.log.read_text()
    assert "rms_norm=['tunesmith', 'native'], fused_add_rms_norm=['tunesmith', 'native']" in log
    assert "tunesmith: this vLLM's" not in log and "tunesmith_vllm 2" in served.server.engine


def test_its_engine_is_a_fork_that_imports_nothing_again(served: Served) -> None:
    assert served.server.log.read_text().count("Triton is installed, but") == 1


def test_the_first_server_of_a_machine_starts_no_other_python_and_compiles_nothing(served: Served) -> None:
    """Log probabilities are what vLLM would compile a function for: half a minute, and a compiler has to be there."""
    folder = served.home.parent
    assert list((folder / "vllm" / "modelinfos").iterdir()), "or it did not look at the model"
    started = (folder / "site" / PYTHONS).read_text().splitlines()
    assert len(started) == 3, started
    assert all(
        own in line for own, line in zip(("pipeline.worker", "serving.supervisor", "vllm serve"), started, strict=True)
    )
    told = asyncio.run(score_prompt(served.server, served.base, [5, 6, 7, 8]))
    assert len(told) == 3 and all(one < 0 for one in told)
    assert not [file for file in (folder / "compiled").rglob("*") if file.is_file()]


def nats(served: Served, *models: str) -> list[list[float]]:
    """What each of `models` finds of every token of every text, all in flight at once."""

    async def go() -> list[list[float]]:
        asked = (asyncio.gather(*(score_prompt(served.server, model, text) for text in TEXTS)) for model in models)
        return [[nat for text in scored for nat in text] for scored in await asyncio.gather(*asked)]

    return asyncio.run(go())


def test_base_requests_beside_adapter_requests_stay_the_base(served: Served) -> None:
    [alone] = nats(served, served.base)
    beside, adapted = nats(served, served.base, served.adapter)

    def off(one: list[float], other: list[float]) -> float:
        return statistics.fmean(abs(a - b) for a, b in zip(one, other, strict=True))

    print(f"nats a token: base beside {off(beside, alone):.4f}, adapter {off(adapted, alone):.2f}")
    assert off(beside, alone) <= 0.25 < 1.0 < off(adapted, alone)


def test_an_adapter_cannot_be_loaded_without_the_key(served: Served) -> None:
    body = json.dumps({"lora_name": "other", "lora_path": served.server.spec.model_dir}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer wrong"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{served.server.url}/v1/load_lora_adapter", body, headers))
    assert refused.value.code == 401


def test_it_listens_on_the_loopback_address_only(served: Served) -> None:
    parent = psutil.Process(served.server.pid)
    listening = {
        connection.laddr.ip
        for process in (parent, *parent.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_the_key_is_nobody_elses_to_read(served: Served) -> None:
    [*keys] = (served.home / "servers").glob("*.key")
    assert keys and all(key.stat().st_mode & 0o077 == 0 for key in keys)
    database = (served.home / "tunesmith.db").read_bytes()
    assert not any(key.read_bytes().strip() in database for key in keys)


def test_which_run_made_the_served_model_is_one_query(served: Served) -> None:
    with sqlite3.connect(served.home / "tunesmith.db") as db:
        line = db.execute(
            "SELECT made_by_stage, made_by_run FROM v_lineage WHERE artifact = (SELECT max(artifact) FROM artifacts"
            " WHERE kind = 'deployment') ORDER BY depth"
        ).fetchall()
    assert line[0] == ("deploy", "r1") and {*line} == {("deploy", "r1"), ("train", "r1"), ("base", "r1")}


def test_a_question_is_answered_by_what_is_deployed_and_leaves_no_step(served: Served) -> None:
    before = as_json(tunesmith(served.home, "runs", "show", "r1", "--json"))["steps"]
    told = as_json(tunesmith(served.home, "ask", "Name three fruits.", "--json"))
    base, adapter = told["answers"]
    assert (base["arm"], adapter["arm"]) == ("base", "adapter") and base["text"] != adapter["text"]
    assert served.base.endswith(base["artifact"]) and served.adapter.endswith(adapter["artifact"])
    again = as_json(tunesmith(served.home, "ask", "Name three fruits.", "--arms", "base", "--json"))["answers"]
    assert again[0]["text"] == base["text"] and base["seconds"] > 0
    assert as_json(tunesmith(served.home, "runs", "show", "r1", "--json"))["steps"] == before
    assert [server.id for server in servers.list_servers(served.home)] == [served.server.id]


def test_it_answers_who_has_its_key_and_its_end_leaves_no_listener(served: Served) -> None:
    [told] = as_json(tunesmith(served.home, "serve", "status", "--json"))["servers"]
    assert told["model"] == served.adapter
    body = {"model": told["model"], "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}

    def asked(key: str) -> int:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{told['url']}/v1/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["choices"][0]["message"]
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert (asked(Path(told["key_file"]).read_text().strip()), asked("wrong")) == (200, 401)
    assert tunesmith(served.home, "serve", "stop").returncode == 0
    with pytest.raises(urllib.error.URLError):
        asked("any")
