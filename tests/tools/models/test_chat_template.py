"""Whether tools reach a model, and which of vLLM's parsers reads its calls, both told by its chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.tools.models.chat_template import takes_tools, template_text, tool_parser_of

QWEN = "{%- if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools><tool_call>{% endif %}"
FAMILIES = {
    "hermes": QWEN,
    "qwen3_coder": "{% if tools %}<tool_call>\n<function=name>\n<parameter=x>{% endif %}",
    "mistral": "{%- if tools is not none %}[AVAILABLE_TOOLS]{{ tools }}{% endif %}[TOOL_CALLS]",
    "llama3_json": '{%- if tools is not none %}{"name": function name, "parameters": …}{% endif %}<|python_tag|>',
    "granite": "{%- if tools %}<|start_of_role|>tools{{ tools }}{% endif %}<|tool_call|>",
    "phi4_mini_json": "{% if 'tools' in message and message['tools'] %}<|tool|>{{ message['tools'] }}{% endif %}",
}


def folder(path: Path, template: str) -> Path:
    made = make_tiny_model(path / "model")
    (made / "chat_template.jinja").write_text(template)
    return made


@table("parser", FAMILIES)
def test_the_parser_is_that_of_the_family(parser: str, tmp_path: Path) -> None:
    made = folder(tmp_path, FAMILIES[parser])
    assert tool_parser_of(made) == parser and takes_tools(made)


def test_a_template_without_tools_leaves_them_out_however_often_its_text_says_tools(tmp_path: Path) -> None:
    plain = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    for text in (plain, "You have no tools. " + plain, plain + " tools {{ x }}", ""):
        made = folder(tmp_path / str(len(text)), text)
        assert not takes_tools(made) and tool_parser_of(made) == "hermes"


def test_several_templates_in_the_tokenizers_settings_are_all_read(tmp_path: Path) -> None:
    made = folder(tmp_path, "")
    (made / "chat_template.jinja").unlink()
    listed = [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": QWEN}]
    (made / "tokenizer_config.json").write_text(json.dumps({"chat_template": listed}))
    assert takes_tools(made) and "<tools>" in template_text(made)
