"""The real vLLM behind the guard: every route that it names, asked without the key. Minutes: `make test-trust`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.spec import ServerSpec

VLLM = find_vllm(None)
pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.skipif(VLLM is None, reason="no vLLM here")]
BESIDE = ("/metrics", "/load", "/version", "/invocations", "/tokenize", "/adapters", "/docs", "/redoc", "/ping")

OPEN = {("GET", "/health"): 200, ("HEAD", "/health"): 405}
"""What the guard lets through without a key, and what vLLM says to it: it knows no HEAD."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    assert VLLM
    home = tmp_path_factory.mktemp("home")
    size = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}
    model = write_tiny_model(home / "model", **size)
    spec = ServerSpec(model_dir=str(model), served_name="tiny", max_lora_rank=16, max_model_len_tokens=512)
    try:
        yield servers.start(home, spec, vllm=VLLM, log_path=home / "vllm.log", owner="s1")
    finally:
        servers.stop_all(home)


def ask(server: servers.Server, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    data = b"{}" if method in ("POST", "PUT", "PATCH") else None
    request = urllib.request.Request(
        server.url + path, data, {"Content-Type": "application/json", **headers}, None, False, method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def key_of(server: servers.Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key}"}


def test_every_route_of_its_own_but_health_is_401_without_the_key(server: servers.Server) -> None:
    status, told = ask(server, "GET", "/openapi.json", **key_of(server))
    assert status == 200
    paths: dict[str, dict[str, Any]] = json.loads(told)["paths"]
    asked = 0
    for path in [*paths, *BESIDE]:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
            wanted = OPEN.get((method, path), 401)
            assert ask(server, method, path.replace("{", "").replace("}", ""))[0] == wanted, f"{method} {path}"
            asked += 1
    print(f"{len(paths)} routes of /openapi.json, {asked} requests without the key")
    assert len(paths) > 15


def test_with_the_key_it_answers_and_loads_adapters_only_for_us(server: servers.Server) -> None:
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}).encode()
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", body, {**key_of(server), "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status == 200
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/x"):
        assert ask(server, "POST", path, **key_of(server))[0] == 403
    with pytest.raises(Exception, match="vLLM refused the adapter"):  # it got as far as vLLM
        servers.load_adapter(server, "a1", Path("/nowhere"))
