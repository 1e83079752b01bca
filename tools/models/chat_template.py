"""A model folder's chat template, read as text: whether tools reach the model, and how it writes calls.

A template that names no tools leaves them out in silence: the model is asked to call what it was never shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

# One pass over what may be megabytes: a tag begins, ends, or names the tools.
_TAGS = re.compile(r"(?P<open>\{[{%])|(?P<close>[%}]\})|\btools\b")
# What a template that writes calls in this way holds → vLLM's name for the parser; the first that fits.
_CALL_MARKS = (
    ("[TOOL_CALLS]", "mistral"),
    ("<function=", "qwen3_coder"),
    ("<|python_tag|>", "llama3_json"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<minimax:tool_call>", "minimax_m2"),
    ("<seed:tool_call>", "seed_oss"),
    ("<start_function_call>", "functiongemma"),
    ("<|tool_call_start|>", "lfm2"),
    ("<arg_key>", "glm45"),
    ("<|channel|>commentary", "openai"),
    ("<|action_start|>", "internlm"),
    ("<|tool_call|>", "granite"),
    ("<|tool|>", "phi4_mini_json"),
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
)
USUAL_PARSER = "hermes"
"""`<tool_call>{"name", "arguments"}</tool_call>`: Qwen, Hermes, Granite 4 and most others; of a model without a form of
its own, the one in which it would have to write calls."""


def template_text(model_dir: Path) -> str:
    """The chat template, wherever the folder keeps it; all of them where there are several, empty for none."""
    own = model_dir / "chat_template.jinja"
    if own.is_file():
        return own.read_text()
    config = model_dir / "tokenizer_config.json"
    template = json.loads(config.read_text()).get("chat_template", "") if config.is_file() else ""
    if isinstance(template, list):
        return "\n".join(str(entry.get("template", "")) for entry in template)
    return str(template)


def template_sha256(model_dir: Path) -> str:
    """Digest of the chat template, wherever the folder keeps it."""
    own = model_dir / "chat_template.jinja"
    if own.is_file():
        return hashlib.sha256(own.read_bytes()).hexdigest()
    config = model_dir / "tokenizer_config.json"
    template = json.loads(config.read_text()).get("chat_template", "") if config.is_file() else ""
    return hashlib.sha256(json.dumps(template).encode()).hexdigest()


def takes_tools(model_dir: Path) -> bool:
    """Whether the template shows the model the tools that a request offers."""
    inside = False
    for mark in _TAGS.finditer(template_text(model_dir)):
        if inside and mark.lastgroup is None:
            return True
        inside = mark.lastgroup == "open" or (inside and mark.lastgroup is None)
    return False


def tool_parser_of(model_dir: Path) -> str:
    """vLLM's parser for the way in which this model writes tool calls, told by its template."""
    text = template_text(model_dir)
    return next((parser for mark, parser in _CALL_MARKS if mark in text), USUAL_PARSER)
