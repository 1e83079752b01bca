"""What a run's models are asked under: chosen by the template, recorded where it is unusual, and cut from answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tests.fixtures.thinking import CHANNELS, OPENS, SWITCH
from tests.fixtures.tiny_model import TEMPLATE
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.models.chat_template import THOUGHTS, thoughts_in
from tunesmith.tools.serving.client import ChatResponse
from tunesmith.tools.serving.context_settings import (
    ContextSettings,
    choose_context_settings,
    context_settings_of,
    positions_of,
)
from tunesmith.tools.serving.spec import ServerSpec, engine_arguments
from tunesmith.tools.serving.thoughts import CUT_OFF, without_thought

NEMOTRON = "{% set ns.enable_thinking = true %}{% if add_generation_prompt %}<think>{% endif %}"
INSTRUCT = "{% if add_generation_prompt %}<|assistant|><think>\n\n</think>{% endif %}"


def made(kind: str, **meta: object) -> Artifact:
    return Artifact("a1", "r1", "s1", kind, Path(), "sha", 1, (), dict(meta))


@pytest.mark.parametrize(
    "template, thoughts",
    [(TEMPLATE, ""), (SWITCH, "switch"), (OPENS, "opens"), (CHANNELS, "channels"), (INSTRUCT, ""), (NEMOTRON, "opens")],
)
def test_the_template_tells_how_a_model_thinks(template: str, thoughts: str) -> None:
    assert thoughts_in(template) == thoughts


def test_thoughts_are_left_out_where_they_can_be_and_have_room_where_not() -> None:
    assert choose_context_settings("") == ContextSettings()
    assert choose_context_settings("switch") == ContextSettings(thinking="off")
    assert choose_context_settings("switch", "on", tokens=500) == ContextSettings(thinking="on", thinking_tokens=500)
    assert (
        choose_context_settings("opens")
        == choose_context_settings("channels")
        == ContextSettings(thinking="on", thinking_tokens=1024)
    )
    assert choose_context_settings("", "off") == ContextSettings()


def test_what_a_template_cannot_do_is_refused() -> None:
    with pytest.raises(BadInput, match="knows no thoughts"):
        choose_context_settings("", "on")
    with pytest.raises(BadInput, match=r"think always.*thinking_tokens"):
        choose_context_settings("opens", "off")


def test_what_is_usual_is_written_nowhere_so_that_older_records_stay_comparable() -> None:
    assert ContextSettings().recorded == {} and ContextSettings().pins == {} and ContextSettings().steps == ()
    assert Sampling.on(ContextSettings(), 96).key == {"sampling": "temperature=0 seed=0 max_tokens=96"}
    assert engine_arguments(ServerSpec(model_dir="m", served_name="m")) == [
        "--max-model-len=2048", "--max-num-seqs=64", "--max-num-batched-tokens=2048", "--disable-uvicorn-access-log",
        "--enable-auto-tool-choice", "--tool-call-parser=hermes", "--enforce-eager", "--dtype=bfloat16",
        "--no-enable-chunked-prefill",
    ]  # fmt: skip


@table("bench", [ContextSettings(8192), ContextSettings(thinking="off"), ContextSettings(4096, "on", 700)])
def test_what_is_unusual_is_in_the_record_the_plan_and_the_key(bench: ContextSettings) -> None:
    assert context_settings_of({"suite": made("suite", **bench.recorded)}) == bench
    assert bench.steps and bench.pins and bench.pins != replace(bench, context_tokens=16384).pins
    key = Sampling.on(bench, 96).key
    assert (key != Sampling(96).key) == bool(bench.thinking)
    spec = ServerSpec(
        model_dir="m", served_name="m", max_model_len_tokens=bench.context_tokens,
        without_thoughts=bench.thinking == "off",
    )  # fmt: skip
    told = " ".join(engine_arguments(spec))
    assert (f"--max-model-len={bench.context_tokens}" in told) and (
        ('--default-chat-template-kwargs={"enable_thinking": false}' in told) == (bench.thinking == "off")
    )


def test_the_baselines_record_goes_before_the_base_and_an_older_one_leaves_all_as_it_was() -> None:
    base = made("base", **{THOUGHTS: "switch"})
    assert context_settings_of({}) == context_settings_of({"base": made("base")}) == ContextSettings()
    assert context_settings_of({"base": base}) == ContextSettings(thinking="off")
    assert context_settings_of({"base": base, "suite": made("suite", suite_sha256="x", cases=3)}) == ContextSettings()


def test_an_answer_is_what_follows_the_last_thought() -> None:
    def cut(text: str, reason: str = "stop") -> ChatResponse:
        return without_thought(ChatResponse(id="q", text=text, finish_reason=reason, completion_tokens=40))

    assert cut("<think>\nhm </think> no</think>\n\nyes").text == "yes"
    assert cut("so it is</think>yes").text == "yes", "the prompt opened the thought"
    assert cut("yes").text == "yes" and cut("<think>\n\n</think>\n\n").text == ""
    assert cut("</think>yes and", "length").error is None, "the answer is cut, not the thought"
    for text, reason in (("<think>hm", "stop"), ("hm, let me", "length"), ("", "length")):
        ended = cut(text, reason)
        assert ended.error and ended.error.startswith(f"{CUT_OFF} after 40 tokens") and ended.text == text


def test_the_positions_of_a_model_are_its_own_or_its_text_parts() -> None:
    assert positions_of({"max_position_embeddings": 512}) == 512
    assert positions_of({"text_config": {"max_position_embeddings": 4096}}) == 4096
    assert positions_of({}) == 0
