"""A model folder's chat templates, tried in a confined child before anything else renders them.

A template is a program of a stranger's. The sandbox keeps it from reaching Python; nothing there keeps two nested loops
from holding whoever renders it for hours, vLLM included. So it has to show first that a few conversations cost it
little. Not covered: a template that waits for other words, for chance, or for another day.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.memory.confined import Limits, OverLimits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import clip, one_line
from tunesmith.tools.core.plain_file import read_plain_text

LIMITS = Limits(cpu_s=2.0, memory_bytes=256 << 20)
"""An honest template takes hundredths of a second for all conversations, and 60 MB with Python and Jinja."""
MOST_RENDERED_CHARACTERS = 200_000
"""Many times the longest of the conversations below: a loop that never ends is what writes more."""
_TEMPLATE_BYTES, _JSON_BYTES = 1 << 20, 16 << 20
"""Templates have some KB, their settings with all added tokens some MB: what has more was not written for one."""
_ERROR_CHARACTERS = 300
"""A template may raise any text; a plan quotes it."""


class ChatTemplate:
    """A chat template that means what it means to transformers, without transformers' second of imports."""

    def __init__(self, text: str, variables: Mapping[str, object]) -> None:
        """`variables` are the special tokens. Raises BadInput for what is no template."""
        self._variables = variables
        try:
            self._compiled = _environment().from_string(text)
        except MemoryError:  # the limits' own, and no fault of its words
            raise
        except Exception as error:  # its own, or one of Python's compiler
            raise _in_its_words(error) from None

    def render(self, messages: Sequence[Mapping[str, object]], asks: bool, *, tools: object = None) -> str:
        """A conversation as text; `asks`: the answer is to be written next.

        Raises BadInput in the template's own words where it fails, and OverLimits where it writes too much.
        """
        given = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": asks}
        chunks: list[str] = []
        room = MOST_RENDERED_CHARACTERS
        try:
            for chunk in self._compiled.generate({**given, **self._variables}):
                chunks.append(chunk)
                room -= len(chunk)
                if room < 0:
                    raise OverLimits(f"writes over {MOST_RENDERED_CHARACTERS:,} characters for a short conversation")
        except (MemoryError, OverLimits):  # the limits' own
            raise
        except Exception as error:  # whatever a template's own calculations raise
            raise _in_its_words(error) from None
        return "".join(chunks)


def probe_template(folder: Path, name: str = "") -> None:
    """Raises BadInput where a chat template of the folder takes too much, or none can render a plain question.

    `name` is what the model is called in that sentence, where the folder is not what was asked for.
    """
    name, remedy = name or str(folder), "correct the template, or take the model from somewhere else"
    try:
        failures = confined_answer(try_templates, str(folder.absolute()), "its chat template", LIMITS)
    except BadInput as error:
        raise BadInput(f"{name}: {error}; {remedy}") from None
    if failures and all(failures):
        raise BadInput(f"{name}: its chat template fails for a plain question ({failures[0]}); {remedy}")


def try_templates(folder: str) -> Iterator[object]:
    """For each template of a folder, why it cannot render a plain question; empty where it can. In the child only."""
    variables = _special_tokens(Path(folder))
    yield [_failure(text, variables) for text in _templates(Path(folder))]


def _failure(text: str, variables: Mapping[str, object]) -> str:
    failure = ""
    try:
        template = ChatTemplate(text, variables)
        for number, (messages, tools) in enumerate(_CONVERSATIONS):
            try:
                template.render(messages, messages[-1]["role"] != "assistant", tools=tools)
            except OverLimits:
                raise
            except BadInput as error:
                # An honest template may know no system message, or no tools.
                failure = failure or (str(error) if number == 0 else "")
    except OverLimits as error:
        raise BadInput(f"its chat template {error}") from None
    except BadInput as error:  # told and not raised: the folder may hold another template, which works
        return str(error)
    return failure


def _templates(folder: Path) -> list[str]:
    """Every template, wherever a library looks for one."""
    files = [folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*.jinja"))]
    templates: list[object] = [read_plain_text(file, _TEMPLATE_BYTES) for file in files if file.is_file()]
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        named = _settings(folder / name).get("chat_template")
        templates += (
            [one.get("template") if isinstance(one, dict) else one for one in named]
            if isinstance(named, list)
            else [named]
        )
    return list(dict.fromkeys(text for text in templates if isinstance(text, str) and text))


def _special_tokens(folder: Path) -> dict[str, str]:
    """What a template is given beside the conversation: `bos_token` and the like, as text."""
    settings = _settings(folder / "special_tokens_map.json") | _settings(folder / "tokenizer_config.json")
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in settings.items()}
    return {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}


def _settings(file: Path) -> dict[str, object]:
    document = json.loads(read_plain_text(file, _JSON_BYTES)) if file.is_file() else {}
    return document if isinstance(document, dict) else {}


class _Generation(Extension):
    """`{% generation %}`, around what the model says: a block of its own for names, and nothing else."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja's own class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Macro) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    """As `transformers.utils.chat_template_utils` sets its own up; a test holds the two together."""

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    def as_json(
        value: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )  # no sign escaped for HTML

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    # As transformers gives it: a template may say the date, so a prompt is not the same every day.
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _in_its_words(error: Exception) -> BadInput:
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    return BadInput(kind + clip(one_line(error), _ERROR_CHARACTERS))


def _message(role: str, content: str, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


_CALL = {"type": "function", "id": "call00001", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_QUESTION = _message("user", "What is the capital of France? Answer in one short sentence.")
_CONVERSATIONS: Sequence[tuple[list[dict[str, object]], object]] = (
    ([_QUESTION], None),
    ([_QUESTION, _message("assistant", "Paris.")], None),
    ([_message("system", "Be brief."), *[_message("user", "Hi"), _message("assistant", "Yes?")] * 4, _QUESTION], None),
    ([_message("user", "Weather in Paris?"), _message("assistant", "", tool_calls=[_CALL]),
      _message("tool", '{"sun": true}', name="weather", tool_call_id="call00001")], [_TOOL]),
    ([_message("user", "Some words, again. " * 600)], None),
)  # fmt: skip
"""Short, several turns, tools, and more than 10,000 characters; the first has to be rendered."""
