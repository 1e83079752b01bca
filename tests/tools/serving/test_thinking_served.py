"""The real vLLM with thoughts switched off: it renders the prompt that rows are trained on. A minute."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tests.fixtures.thinking import SWITCH, think
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.serving.spec import ServerSpec

VLLM = find_vllm(None)
pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.skipif(VLLM is None, reason="no vLLM here")]
ASKED = [{"role": "user", "content": "Two and two?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    assert VLLM
    home = tmp_path_factory.mktemp("home")
    size = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}
    model = think(write_tiny_model(home / "model", **size), SWITCH)
    spec = ServerSpec(model_dir=str(model), served_name="tiny", max_model_len_tokens=512, without_thoughts=True)
    try:
        yield servers.start(home, spec, vllm=VLLM, log_path=home / "vllm.log", owner="s1")
    finally:
        servers.stop_all(home)


def test_every_prompt_is_rendered_without_a_thought_unless_a_request_asks_for_one(server: servers.Server) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(server.spec.model_dir))
    off, on = (
        list(tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=True, **options)["input_ids"])
        for options in ({"enable_thinking": False}, {})
    )
    assert servers.template_tokens(server, ASKED) == off != on

    async def answer(**extra: object) -> ChatResponse:
        async with ChatClient(server.url, server.key) as client:
            return await client.complete(ChatRequest("q", "tiny", ASKED, 4, extra=extra))

    assert asyncio.run(answer()).prompt_tokens == len(off)
    assert asyncio.run(answer(chat_template_kwargs={"enable_thinking": True})).prompt_tokens == len(on)
