"""Prompts: text, or chat messages as a list, as JSON text or as YAML text, filled in for one case at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.tools.core.yaml_nodes import YamlRefused, parse_yaml
from tunesmith.tools.suites.budget import TextBudget
from tunesmith.tools.suites.files import CODE_SUFFIXES, SuiteFiles
from tunesmith.tools.suites.template import LONE_SURROGATE, has_lone_surrogate, render

_ROLES = frozenset(("system", "user", "assistant", "tool", "developer"))
_FILE_SUFFIXES = frozenset((".txt", ".md", ".json", ".yaml", ".yml", ".j2"))
_RUNS = ("exec:", "python:", "javascript:", "langfuse://", "portkey://", "helicone://")
_SEPARATOR = "\n---\n"


@dataclass(frozen=True)
class Prompt:
    """A template of one prompt: `text`, or `chat` where it is messages already."""

    label: str
    text: str = ""
    chat: tuple[dict[str, object], ...] | None = None


def read_prompts(files: SuiteFiles, config: dict[str, object]) -> list[Prompt]:
    """The suite's prompts. Raises BadInput where there are none, or one is code, remote or misshapen."""
    listed = config.get("prompts")
    items = listed if isinstance(listed, list) else [listed] if listed is not None else []
    prompts = [prompt for item in items for prompt in _prompts_of(files, item, listed if listed in items else config)]
    if not prompts:
        files.refuse(config, "the suite has no prompts; add prompts: ['{{question}}'] and give each test that var")
    return prompts


def _prompts_of(files: SuiteFiles, item: object, near: object) -> list[Prompt]:
    label = ""
    if isinstance(item, dict):
        if unknown := item.keys() - {"raw", "label", "id", "description"}:
            files.refuse(item, f"a prompt has raw and label; {sorted(unknown)[0]!r} is not read")
        near, label, item = item, str(item.get("label") or item.get("id") or ""), item.get("raw", item.get("id"))
    if isinstance(item, list):
        return [Prompt(label, chat=_checked_chat(files, item, item))]
    if not isinstance(item, str) or not item:
        files.refuse(near, "a prompt is text, {raw, label}, or a list of {role, content} messages")
    if item.startswith(_RUNS):
        files.refuse(
            near, f"the prompt {item[:60]!r} runs a program or calls out, which is refused; write its text here"
        )
    if item.startswith("file://") or _names_file(item):
        paths = files.named(item, near)
        return [prompt for path in paths for prompt in _prompts_of_file(files, path, label)]
    return [_prompt_of_text(files, item, label or item, near)]


def _names_file(text: str) -> bool:
    # A prompt may end in a dot and a word; a file's name is short and has no blank.
    suffix = Path(text).suffix.lower() if len(text) < 200 and not any(c in text for c in " \n{") else ""
    return suffix in _FILE_SUFFIXES or suffix in CODE_SUFFIXES


def _prompts_of_file(files: SuiteFiles, path: Path, label: str) -> list[Prompt]:
    text = files.read(path)
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        loaded = files.load(path)
        if not isinstance(loaded, list):
            files.refuse(loaded, f"{path.name}: a prompt in this format is a list of messages")
        return [Prompt(label or path.name, chat=_checked_chat(files, loaded, loaded))]
    texts = [part.strip() for part in f"\n{text}\n".split(_SEPARATOR)] if path.suffix == ".txt" else [text.strip()]
    return [_prompt_of_text(files, part, label or path.name, None) for part in texts if part]


def _prompt_of_text(files: SuiteFiles, text: str, label: str, near: object) -> Prompt:
    chat = chat_of_text(text)
    return Prompt(label, chat=_checked_chat(files, chat, near)) if chat is not None else Prompt(label, text=text)


def chat_of_text(text: str) -> list[dict[str, object]] | None:
    """The messages that `text` spells out as JSON or YAML; None where it is just text."""
    start = text.lstrip()
    if start.startswith("- role:"):
        try:
            value = parse_yaml(text, "prompt").plain
        except YamlRefused:  # a text that begins like a list
            return None
    elif start.startswith("["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # a text in brackets
            return None
    else:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) and "role" in item for item in value):
        return None
    return value or None


def _checked_chat(files: SuiteFiles, messages: list[dict[str, object]], near: object) -> tuple[dict[str, object], ...]:
    wrong = wrong_chat(messages)
    if wrong:
        files.refuse(near, wrong)
    return tuple(messages)


def wrong_chat(messages: Sequence[object]) -> str:
    """What is wrong with a list of chat messages; empty when nothing is."""
    if not messages:
        return "a prompt has no messages"
    if has_lone_surrogate(json.dumps(messages, ensure_ascii=False)):  # in any text of theirs, at any depth
        return LONE_SURROGATE
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return f"messages[{index}] has no role out of {', '.join(sorted(_ROLES))}"
        content = message.get("content")
        if not isinstance(content, str | list) and not (content is None and message.get("tool_calls")):
            return f"messages[{index}] has no content"
    return ""


def fill_prompt(
    prompt: Prompt, values: Mapping[str, object], prefix: str, suffix: str, budget: TextBudget
) -> tuple[dict[str, object], ...]:
    """The chat messages of one case. Raises ValueError for a template that cannot be filled in."""
    if prompt.chat is not None and (prefix or suffix):
        raise ValueError("options.prefix and suffix go with text prompts only; write them into the messages")
    if prompt.chat is not None:
        return tuple(_filled_mapping(message, values, budget) for message in prompt.chat)
    text = render(prefix + prompt.text + suffix, values, budget)
    chat = chat_of_text(text) if text != prompt.text else None
    if chat is None:
        return ({"role": "user", "content": text},)
    if wrong := wrong_chat(chat):
        raise ValueError(f"the filled-in prompt spells out messages, but {wrong}")
    return tuple(chat)


def _filled_mapping(value: Mapping[str, object], values: Mapping[str, object], budget: TextBudget) -> dict[str, object]:
    return {key: _filled(item, values, budget) for key, item in value.items()}


def _filled(value: object, values: Mapping[str, object], budget: TextBudget) -> object:
    if isinstance(value, str):
        return render(value, values, budget)
    if isinstance(value, dict):
        return _filled_mapping(value, values, budget)
    return [_filled(item, values, budget) for item in value] if isinstance(value, list) else value
