"""A stranger's chat template shows in a confined child that it costs little, and means what it does to transformers."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.families import FAMILIES
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.confined import OverLimits
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.models import template_trial
from tunesmith.tools.models.template_trial import LIMITS, ChatTemplate, probe_template, try_templates
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

ANSWERS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
WRITES = LOOPS.replace("{% endfor %}", "x{% endfor %}")
"""Refused long before its time is up."""
ENDLESS = {
    "loops": LOOPS,
    "loops that write": WRITES,
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "a long string": "{% set x = 'a' * 1000000000 %}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a long answer": "{{ 'a' * 300000 }}",
    "a long number": "{{ '%0999999999d' % 1 }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a system message": "{% if messages[0].role == 'system' %}" + WRITES + "{% endif %}",
    "many turns": "{% if messages|length > 6 %}" + WRITES + "{% endif %}",
    "tools": "{% if tools %}" + WRITES + "{% endif %}",
    "an answer": "{% if not add_generation_prompt %}" + WRITES + "{% endif %}",
    "a long message": "{% if messages[0].content|length > 9999 %}" + WRITES + "{% endif %}",
}
RICH = """{%- set ns = namespace(seen=0) -%}
{% macro said(m) %}<{{ m.role }}>{{ m.content|trim }}{% endmacro %}
{% if tools %}
    {{ tools|tojson(indent=2) }} {{ {"b": "<é>", "a": 1}|tojson(sort_keys=true) }}
{% endif %}
{% for m in messages %}
    {% if m.role == 'tool' %}{% continue %}{% endif %}
    {% generation %}{% set ns.seen = ns.seen + 1 %}{% set own = 1 %}{{ said(m) }}{{ own }}{% endgeneration %}
    {{- own is defined }}
    {% if loop.index > 6 %}{% break %}{% endif %}
{% endfor %}
{{ bos_token }}{{ eos_token }}{{ ns.seen }} {{ unknown }}{{ documents }} {{ strftime_now('%Y') }}
{% if add_generation_prompt %}>{% endif %}
"""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never ends need not be waited for."""
    monkeypatch.setattr(template_trial, "LIMITS", LIMITS._replace(cpu_s=0.2))


def a_folder(tmp_path: Path, template: str) -> Path:
    folder = make_tiny_model(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.heavy
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", list(ENDLESS))
def test_a_template_that_takes_too_much_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    folder = a_folder(tmp_path, ENDLESS[kind] + ANSWERS)
    reason = "took more than (0.2 s of processor time|256 MB of memory)"
    reason += "|writes over 200,000 characters for a short conversation"
    with pytest.raises(BadInput, match=f"^{folder}: its chat template ({reason}).*; correct the template, or"):
        probe_template(folder)


def test_every_template_of_a_folder_is_tried(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "{{ raise_exception('a') }}")
    more = [
        {"name": "default", "template": "{{ raise_exception('c') }}"},
        {"name": "odd"},
        "{{ raise_exception('d') }}",
    ]
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "x.jinja").write_text("{{ raise_exception('b') }}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": more}))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ raise_exception('e') }}"}))
    (folder / "processor_config.json").write_text(json.dumps({"chat_template": "{{ raise_exception('f') }}"}))
    assert next(try_templates(str(folder))) == ["a", "b", "c", "d", "e", "f"]
    (folder / "processor_config.json").write_text(json.dumps({"chat_template": ANSWERS}))
    probe_template(folder)


@pytest.mark.heavy
def test_base_takes_no_model_whose_template_takes_too_much(tmp_path: Path) -> None:
    """In its own worker, before anything else renders it; nothing is left below models/."""
    folder = a_folder(tmp_path, WRITES + ANSWERS)
    ws = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    request = StepRequest("base", {"model": str(folder)}, ws.store.new_run("test"))
    with pytest.raises(StepFailed, match=f"{folder}: its chat template writes over 200,000 characters"):
        run_step(ws, request, say_yes).done()
    assert [path.name for path in (tmp_path / "home" / "models").iterdir()] == []


def test_templates_of_every_family_pass(tmp_path: Path) -> None:
    """Those that take no system message and no tools among them, and one that only needs its own first token."""
    templates = [{"name": kind, "template": family.template} for kind, family in FAMILIES.items()]
    folder = a_folder(tmp_path, "{{ bos_token + messages[0].content }}")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": templates, "bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    )
    probe_template(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").unlink()
    probe_template(folder)


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_template_that_takes_no_system_message_passes(kind: str, tmp_path: Path) -> None:
    assert "raise_exception" in FAMILIES[kind].template
    assert next(try_templates(str(a_folder(tmp_path, FAMILIES[kind].template)))) == [""]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('never\nSYSTEM x') }}", r"\(never SYSTEM x\)"),
        ("{% if", r"\(unexpected 'end of template'\)"),
        ("{{ 1 + 'a' }}", r"\(TypeError: unsupported"),
        ("{{ ''.__class__.__mro__ }}", r"\(access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ " + "(" * 9999 + " }}", r"\(RecursionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", r"\(RecursionError"),
    ],
)
def test_a_template_that_renders_nothing_is_refused_in_its_own_words(
    template: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"its chat template fails for a plain question {reason}.*; correct") as refusal:
        probe_template(a_folder(tmp_path, template))
    assert len(str(refusal.value).splitlines()) == 1


def test_a_file_that_is_no_template_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "x" * ((1 << 20) + 1))
    with pytest.raises(BadInput, match="over 1 MB"):
        probe_template(folder)
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not UTF-8"):
        probe_template(folder)


def test_blocks_whites_and_filters_are_those_of_transformers() -> None:
    """As its own environment writes it: the test below holds them together."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": " a "}, {"role": "tool", "content": "b"}]
    written = ChatTemplate(RICH, {"bos_token": "<s>"}).render(messages, True, tools=[{"t": "é<"}])
    assert written == (
        f'    [\n  {{\n    "t": "é<"\n  }}\n] {{"a": 1, "b": "<é>"}}\n<user>a1False\n<s>1 None {datetime.now():%Y}\n>'
    )
    with pytest.raises(OverLimits, match="200,000"):
        ChatTemplate("{{ 'a' * 200001 }}", {}).render(messages, True)


@pytest.mark.lab
@pytest.mark.parametrize("kind", [*FAMILIES, "rich"])
def test_a_template_means_what_it_means_to_transformers(kind: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = RICH if kind == "rich" else FAMILIES[kind].template
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for (messages, tools), asks in product(template_trial._CONVERSATIONS, (True, False)):
        given = {"chat_template": template, "tools": tools, "add_generation_prompt": asks, **tokens}
        wanted = outcome(lambda: render_jinja_template([messages], **given)[0][0])  # noqa: B023
        assert outcome(lambda: ChatTemplate(template, tokens).render(messages, asks, tools=tools)) == wanted  # noqa: B023


def outcome(render: Any) -> str:
    try:
        return str(render())
    except Exception as error:
        return str(error)
