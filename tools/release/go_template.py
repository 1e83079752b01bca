"""A chat template of a base as an Ollama TEMPLATE, which is a Go template: found by asking, and proven by comparing.

The base's own template is rendered for a few conversations of marked words; what it writes around them is taken apart
into what opens and closes a message of each role, and put together again as a Go template. That is rendered for other
conversations and must write the very text of the base's. A template that does more than that is refused, with what it
did otherwise.

Not covered: tools, images and reasoning, which an Ollama model made from it will not be offered, and white space at the
ends of a message, which some bases trim.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tunesmith.memory.confined import confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.template_trial import LIMITS, ChatTemplate

Message = Mapping[str, str]
Render = Callable[[Sequence[Message], bool], str]
"""The base's template: messages, and whether the answer is to be written next → text."""
_SYSTEM, _USER, _ANSWER, _NEXT = "Qsystem1", "Quser1", "Qanswer1", "Quser2"
_ACTION = re.compile(r"\{\{ (.*?) \}\}", re.S)
_ROLE = re.compile(r'(?:else )?if eq \.Role "(\w+)"')
_SYNTAX = ("{{", "}}", "{%", "{#", '"""')
_SPACES = str.maketrans("\n\r\t", "   ")


class GoTemplate(NamedTuple):
    """An Ollama template of a base."""

    text: str
    adds_bos: bool
    """Whether the engine has to put the first token before it: Ollama does so by itself where the GGUF says it."""


class _Around(NamedTuple):
    """What a template writes before and after a message."""

    before: str
    after: str


def go_template(render: Render, bos: str) -> GoTemplate:
    """The template of a base. Raises BadInput where it is not one of messages with a beginning and an end each."""
    template = _derived(render, bos)
    for number, chat in enumerate(CONVERSATIONS, 1):
        wanted, written = render(chat, True), (bos if template.adds_bos else "") + render_go(template.text, chat)
        if wanted != written:
            # the shorter may end first
            at = next((n for n, (a, b) in enumerate(zip(wanted, written, strict=False)) if a != b), len(written))
            raise BadInput(
                f"conversation {number} of {len(CONVERSATIONS)} reads {wanted[at:][:40]!r} in the base's template, and "
                f"{written[at:][:40]!r} in one made of messages alone"
            )
    return template


def proven_template(template: str, variables: Mapping[str, object]) -> GoTemplate:
    """The same of a chat template as a base's folder holds it, which is rendered in a confined child only.

    `variables` are the special tokens, and what else it is given.
    """
    return GoTemplate(*confined_answer(prove, (template, variables), "the base's template", LIMITS))


def prove(argument: tuple[str, Mapping[str, object]]) -> Iterator[GoTemplate]:
    """The work of that child."""
    template, variables = argument
    yield go_template(ChatTemplate(template, variables).render, str(variables.get("bos_token") or ""))


def _derived(render: Render, bos: str) -> GoTemplate:
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    system, following = {"role": "system", "content": _SYSTEM}, {"role": "user", "content": _NEXT}
    start, end_user = _split(render([user], False), _USER)
    _, asked = _split(render([user], True), _USER)
    _, end_answer = _split(render([user, answer], False), _ANSWER)
    _, to_answer, to_user, _ = _split(render([user, answer, following], False), _USER, _ANSWER, _NEXT)
    start_system, to_first, _ = _split(render([system, user], False), _SYSTEM, _USER)
    before_user = _without_start(to_user, end_answer, "an answer and the message after it")
    before_answer = _without_start(to_answer, end_user, "a message and its answer")
    generation = _without_start(asked, end_user, "the last message and the answer to come")
    end_system = _without_end(to_first, before_user, "the system message and the first of the user")
    beginning = _without_end(start, before_user, "the first message")
    # A first token that also opens every message, as SmolLM2's does, is no beginning of its own.
    adds_bos = bool(bos) and start.startswith(bos) and bos not in before_user
    if adds_bos:
        beginning, start_system = beginning.removeprefix(bos), start_system.removeprefix(bos)
    roles = {
        "system": _Around(start_system, end_system),
        "user": _Around(before_user, end_user),
        "assistant": _Around(before_answer, end_answer),
    }
    return GoTemplate(_go(beginning, roles, generation), adds_bos)


def _go(beginning: str, roles: Mapping[str, _Around], generation: str) -> str:
    for text in (beginning, generation, *(text for around in roles.values() for text in around)):
        _refuse_syntax(text)
    fragments = [f"{{{{ if not .System }}}}{beginning}{{{{ end }}}}" if beginning else "", "{{ range .Messages }}"]
    for number, (role, around) in enumerate(roles.items()):
        fragments.append(f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}')
        fragments.append(f"{around.before}{{{{ .Content }}}}{around.after}")
    return "".join([*fragments, "{{ end }}{{ end }}", generation])


def _refuse_syntax(text: str) -> None:
    """Raises BadInput for what is more than text in a template or a Modelfile, or what Ollama leaves out of one."""
    # A brace at the end would open the action that follows.
    if any(sign in text for sign in _SYNTAX) or text.endswith("{"):
        raise BadInput("the base's template writes braces or quotes that mean something in an Ollama template")
    if not text.translate(_SPACES).isprintable():
        raise BadInput("the base's template writes a character that cannot be seen, which Ollama leaves out")


def render_go(template: str, messages: Sequence[Message]) -> str:
    """What Ollama would write by a template of ours for these messages, one at least, but for the first token.

    Knows the actions that such a template uses, and no others.
    """
    tokens = _ACTION.split(template)  # text and actions in turn, text first and last
    system = any(message["role"] == "system" and message["content"] for message in messages)

    def body(at: int, message: Message) -> tuple[str, int]:
        """What is written from a token on, and where it ends: at the `end` or `else` that belongs to it."""
        written = ""
        while at < len(tokens):
            token = tokens[at]
            if at % 2 == 0:
                written += token
            elif token == ".Content":
                written += message["content"]
            elif token == "end" or token.startswith("else "):
                break
            else:
                text, at = block(at, message)
                written += text
            at += 1
        return written, at

    def block(at: int, message: Message) -> tuple[str, int]:
        """The same of a `range` or an `if`, and where its own `end` is."""
        if tokens[at] == "range .Messages":
            rounds = [body(at + 1, one) for one in messages]
            return "".join(text for text, _ in rounds), rounds[0][1]
        chosen: list[str] = []
        while tokens[at] != "end":
            role = _ROLE.fullmatch(tokens[at])
            holds = message["role"] == role[1] if role else not system
            text, at = body(at + 1, message)
            chosen += [text] if holds else []
        return "".join(chosen[:1]), at

    return body(0, messages[0])[0]


def _split(text: str, *words: str) -> list[str]:
    """What is before, between and after some words. Raises BadInput where one is missing, or there twice."""
    fragments = []
    for word in words:
        before, separator, text = text.partition(word)
        if not separator or word in text:
            raise BadInput("the base's template leaves out a message, or writes it twice")
        fragments.append(before)
    return [*fragments, text]


def _without_start(text: str, start: str, between: str) -> str:
    if not text.startswith(start):
        raise BadInput(f"the base's template writes something else between {between} than where a message ends")
    return text.removeprefix(start)


def _without_end(text: str, end: str, before: str) -> str:
    if not text.endswith(end):
        raise BadInput(f"the base's template writes something else before {before} than before later ones")
    return text.removesuffix(end)


def _chat(*contents: str, system: str = "") -> list[Message]:
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    return [*([{"role": "system", "content": system}] if system else []), *messages]


CONVERSATIONS: Sequence[Sequence[Message]] = (
    _chat("What is the capital of France?"),
    _chat("Hello", "Hi, how can I help?", "Write one line.\nThen another."),
    _chat("{{ .Content }} and {% x %} and \"quotes\" and 'more'", system='Answer in JSON: {"a": [1, 2]}.'),
    _chat("Grüße, 你好, 🚲?", "Guten Tag!", "<b>&amp;</b>", "ok", "And now?", system="Be brief.\n\nBe kind."),
    _chat("1", "2", "3", "4", "5", "6", "7"),
)
"""Those that a template is proven on: with and without a system message, of several turns, with signs of every kind."""
