"""A model folder's chat template, read as text: whether tools and system messages reach the model, how it writes calls,
whether it thinks.

A template that names no tools leaves them out in silence: the model is asked to call what it was never shown. One that
takes no system message raises an error: what it says then goes before the first question.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

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
    template = _in_settings(model_dir)
    if isinstance(template, list):
        return "\n".join(str(entry.get("template", "")) for entry in template)
    return str(template)


def _in_settings(model_dir: Path) -> object:
    config = model_dir / "tokenizer_config.json"
    return json.loads(config.read_text()).get("chat_template", "") if config.is_file() else ""


def template_sha256(model_dir: Path) -> str:
    """Digest of the chat template, wherever the folder keeps it."""
    own = model_dir / "chat_template.jinja"
    if own.is_file():
        return hashlib.sha256(own.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(_in_settings(model_dir)).encode()).hexdigest()


def takes_tools(model_dir: Path) -> bool:
    """Whether the template shows the model the tools that a request offers."""
    inside = False
    for mark in _TAGS.finditer(template_text(model_dir)):
        if inside and mark.lastgroup is None:
            return True
        inside = mark.lastgroup == "open" or (inside and mark.lastgroup is None)
    return False


# What a template raises as an error, where it says so in one string.
_RAISES = re.compile(r"""raise_exception\(\s*(?:'([^']{1,300})'|"([^"]{1,300})")""")
# Said of system messages as such, not of where one may be or what it may hold.
_NO_SYSTEM = re.compile(
    r"\bsystem(?: (?:role|prompt|message|instruction)s?)?(?: is| are)? (?:not (?:supported|allowed)|unsupported)"
    r"(?:\W*$|\W+(?:by|for|in) this (?:model|template|chat template)\b)"
    r"|\b(?:not|n't) support (?:a |the )?system (?:role|prompt|message|instruction)s?\W*$",
    re.IGNORECASE,
)
_KNOWN_ROLES = re.compile(
    r"roles?\b.*\balternate|\bonly user\b.*\broles?\b|\b(?:unknown|unexpected|invalid) role", re.IGNORECASE
)
"""Said of any message that is neither a user's nor the model's, where the template knows no other."""
_Value = TypeVar("_Value")


def takes_system(model_dir: Path) -> bool:
    """Whether the template takes a system message; True where that cannot be told."""
    try:
        return takes_system_in(template_text(model_dir))
    except (OSError, ValueError, AttributeError):  # settings that are no JSON object: whoever loads the model says so
        return True


@lru_cache(maxsize=8)  # of a few models in one process; compiling one takes hundredths of a second
def takes_system_in(template: str) -> bool:
    """The same of a template: it takes one unless it raises an error that says so, or says which roles alone it takes.

    Not covered: one that leaves a system message out without a word.
    """
    errors = [single or double for single, double in _RAISES.findall(template)]
    if any(_NO_SYSTEM.search(error) for error in errors):
        return False
    return "system" in template.lower() or not any(_KNOWN_ROLES.search(error) for error in errors)


def has_system(messages: Sequence[Mapping[str, object]]) -> bool:
    """Whether a conversation begins with a system message."""
    return bool(messages) and messages[0].get("role") == "system"


def without_system(messages: Sequence[Mapping[str, _Value]]) -> list[dict[str, _Value]]:
    """A conversation whose leading system messages are the first words of its first question, a blank line after each.

    Content that is no text is left alone, and the conversation with it. Where no question follows, they are one.
    """
    leading = list(takewhile(lambda message: message.get("role") == "system", messages))
    rest = [dict(message) for message in messages[len(leading) :]]
    asked = rest.pop(0) if rest and rest[0].get("role") == "user" else None
    contents = [message.get("content") for message in (*leading, *([asked] if asked else []))]
    texts = [content for content in contents if isinstance(content, str)]
    if not leading or len(texts) < len(contents):
        return [dict(message) for message in messages]
    text = cast("_Value", "\n\n".join(filter(None, texts)))
    return [{**(asked or {**leading[0], "role": cast("_Value", "user")}), "content": text}, *rest]


def template_messages(template: object, messages: Sequence[Mapping[str, _Value]]) -> list[dict[str, _Value]]:
    """A conversation as a tokenizer's template takes it."""
    takes_system = takes_system_in(str(template or ""))
    return [dict(message) for message in messages] if takes_system else without_system(messages)


NO_SYSTEM = "the base's chat template takes no system message: its text goes before the first question"
"""What a plan says where it applies."""


def tool_parser_of(model_dir: Path) -> str:
    """vLLM's parser for the way in which this model writes tool calls, told by its template."""
    text = template_text(model_dir)
    return next((parser for mark, parser in _CALL_MARKS if mark in text), USUAL_PARSER)


Thoughts = Literal["", "switch", "opens", "channels"]
"""How a template has a model think before it answers: not at all, unless it is told not to, always, since the prompt
opens a thought, or always, in a channel of its own."""
THOUGHTS = "thoughts"
"""Where a base's record holds it."""
_KINDS: tuple[Thoughts, ...] = get_args(Thoughts)
SWITCH = "enable_thinking"
"""The template's variable that switches thoughts off."""
_SWITCH = re.compile(rf"(?<![.\w]){SWITCH}\b")


def thoughts_of(model_dir: Path) -> Thoughts:
    """How a model's template has it think, by its text."""
    return thoughts_in(template_text(model_dir))


def thoughts_recorded(base: Mapping[str, object]) -> Thoughts:
    """The same by a base's record."""
    return next((kind for kind in _KINDS if kind == base.get(THOUGHTS)), "")


def thoughts_in(template: str) -> Thoughts:
    """The same of a template. Not covered: a switch that only a word in the system prompt sets."""
    if _SWITCH.search(template):
        return "switch"
    _, asks, last = template.rpartition("add_generation_prompt")
    if asks and last.count("<think>") > last.count("</think>"):
        return "opens"
    return "channels" if "<|channel|>analysis" in template else ""


def thoughtless(template: str, *, default: bool = False) -> str:
    """A template that leaves thoughts out, whatever its switch is given; `default`: unless it is given one."""
    value = f"{SWITCH} | default(false)" if default else "false"
    # The end of the line goes with the tag, and what follows stands at the beginning of a line as before.
    return f"{{% set {SWITCH} = {value} %}}\n{template}" if _SWITCH.search(template) else template


def answering_at_once(template: object) -> dict[str, bool]:
    """What a tokenizer's template is given so that an answer follows without a thought; nothing without a switch."""
    return {SWITCH: False} if _SWITCH.search(str(template or "")) else {}
