"""A turn of a small model: what the words ask for is chosen by a schema-bound request, and code says the rest.

The first request of a turn chooses; those after a tool's result are shown no tool. The choice is among the labels that
come into question, each shown by the examples of it that are nearest to the words, with where things stand in front.
Its answer is one label; what the words name is read by code as ever, so that a small model chooses and never invents
an argument. Words of its own answer nothing that it was not told: of 100 strangers' sentences a 1.5B answered three so,
each with something false.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic_ai.capabilities.abstract import WrapModelRequestHandler
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tunesmith.agent.driver.by_code import answered
from tunesmith.agent.driver.history import is_prompt, last_turns, shortened, that_fit
from tunesmith.agent.driver.look_ups import turn_context
from tunesmith.agent.driver.state_summary import in_half_a_line
from tunesmith.agent.driver.tools import stage_call
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.driver.unsure import did_you_mean, guessed
from tunesmith.agent.queries.registry import tool_of
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.head import kind_of
from tunesmith.agent.words.reading import Reading, read, reader
from tunesmith.memory.errors import BadInput, NotFound

NONE = "none"
"""What is chosen where no label fits."""
_CANDIDATES, _SHOTS = 10, 3
"""The right label is nearly always among ten; three examples of each fit into a small driver's context with them."""
_WORDS_CHARACTERS = 600
"""Of the user's, as the reader reads them."""
_CHOICE_TOKENS = 30
"""The longest label and its brackets."""
_INSTRUCTIONS = (
    "You sort what people say to tunesmith, a program that fine-tunes language models. Choose the ONE label whose "
    "examples ask for the same thing as the words do. Answer with JSON only. “none” is for words that fit no label."
)
_MAX_TOKENS = 160
"""Two or three sentences: a small model that is not stopped says the screen again."""
_TURNS_SENT = 2
"""What is left to say leans on this turn's result; a window that slides is computed anew, and the user waits for it."""
_RESULT_CHARACTERS = 240
"""Of an earlier result: what it was can still be seen."""


async def answer(deps: TurnDeps, request: ModelRequestContext, handler: WrapModelRequestHandler) -> ModelResponse:
    """The choice of a tool for the user's words, or what code says to them."""
    if not is_prompt(request.messages[-1]):
        return await handler(_showing(_few_turns(request), []))
    tools = request.model_request_parameters.function_tools
    try:
        choice = await choose(request.model, deps, in_half_a_line(deps))
    except CannotRoute as error:
        deps.routed = not error.lasting
        return await handler(_showing(_few_turns(request), that_fit(tools, deps.window)))
    if isinstance(choice, ToolCallPart):
        deps.calls = [*deps.calls, _brief(choice)]
        return ModelResponse([choice], model_name=request.model.model_name)
    deps.for_model = choice.for_model
    deps.note(choice.text)
    return ModelResponse([TextPart(choice.text)], model_name=request.model.model_name)


def _few_turns(request: ModelRequestContext) -> ModelRequestContext:
    messages = last_turns(request.messages, _TURNS_SENT + 1)
    for index, message in enumerate(messages):
        if isinstance(message, ModelRequest):
            parts = [shortened(part, _RESULT_CHARACTERS) for part in message.parts]
            messages[index] = replace(message, parts=parts)
    return replace(request, messages=messages)


def _showing(request: ModelRequestContext, tools: list[ToolDefinition]) -> ModelRequestContext:
    parameters = replace(request.model_request_parameters, function_tools=tools)
    settings: ModelSettings = {**(request.model_settings or {})}
    if not tools:
        settings["max_tokens"] = _MAX_TOKENS
    return replace(request, model_request_parameters=parameters, model_settings=settings)


def _brief(call: ToolCallPart) -> str:
    # longer ones are texts, which the screen has
    values = [str(value) for value in call.args_as_dict().values() if value not in (None, "") and len(str(value)) < 24]
    return " ".join([call.tool_name, *values])


class CannotRoute(Exception):
    """The driver's answer was no choice, or (`lasting`) it cannot be held to a schema at all."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


async def choose(model: Model, deps: TurnDeps, state: str) -> ToolCallPart | TurnAnswer:
    """The call that answers the user's words, or what is said to them.

    Raises CannotRoute, and what the answer itself raises.
    """
    try:
        reading = read(deps.prompt, turn_context(deps))
    except NoEncoder as error:
        raise CannotRoute(str(error), lasting=True) from error
    if not reading.likely:
        return TurnAnswer(did_you_mean(deps))
    labels = reading.likely[:_CANDIDATES]
    # By hand: pydantic-ai's native output writes the schema into the prompt, where it would cost the server its cache.
    bound = {"type": "json_schema", "json_schema": {"name": "choice", "schema": choice_schema(labels)}}
    settings = ModelSettings(temperature=0.0, max_tokens=_CHOICE_TOKENS, extra_body={"response_format": bound})
    try:
        response = await model_request(model, messages(deps.prompt, labels, state), model_settings=settings)
    except ModelHTTPError as error:
        if error.status_code in (400, 404, 422, 501):  # what servers answer to a field that they do not know
            raise CannotRoute(f"no schema-bound answers here (status {error.status_code})", lasting=True) from error
        raise
    label = chosen(response.text or "", labels)
    if deps.unsure is not None:
        return _two_opinions(deps, label, labels[0])
    act = act_on(deps, reader().read(deps.prompt, turn_context(deps), label)) if label != NONE else None
    return act if act is not None else TurnAnswer(did_you_mean(deps))


def _two_opinions(deps: TurnDeps, label: str, likeliest: str) -> ToolCallPart | TurnAnswer:
    """What comes of words that the reader is unsure of, by the driver's choice and by the reader's own likeliest label.

    Of 56 such sentences a 1.5B chose rightly in half of those where it agreed with the reader and in a fifth of the
    others, so that its choice is a guess, told as one; where the two differ, the answer to the reader's stands beside
    where things stand, and the driver's is offered first.
    """
    if label != NONE and kind_of(label) == kind_of(likeliest):
        deps.unsure = reading = reader().read(deps.prompt, turn_context(deps), label)
        if guess := guessed(deps):
            return guess
        # an order that would only be asked about, or a description that nobody is sure is wanted
        asked = (reading.order is not None and reading.order.unread) or reading.kind == "want"
        try:
            act = None if asked else act_on(deps, reading)
        except (BadInput, NotFound):  # two opinions of what cannot be answered here
            act = None
        return act if act is not None else TurnAnswer(did_you_mean(deps))
    its_own = (reader().head.offer(label),) if label != NONE else ()
    own, others, most = deps.nearest[:1], deps.nearest[1:], len(deps.nearest)
    deps.nearest = tuple(dict.fromkeys((*own, *its_own, *others)))[:most]
    if guess := guessed(deps, doubted=bool(its_own)):
        return guess
    deps.nearest = tuple(dict.fromkeys((*its_own, *deps.nearest)))
    return TurnAnswer(did_you_mean(deps))


def chosen(text: str, labels: Sequence[str]) -> str:
    """The label in the driver's answer. Raises CannotRoute."""
    try:
        label = json.loads(text)["label"]
    except (ValueError, KeyError, TypeError) as error:  # a server that does not hold it to the schema
        raise CannotRoute(f"the choice could not be read: {text[:80]!r}") from error
    if label not in (*labels, NONE):
        raise CannotRoute(f"{label!r} was not to be chosen")
    return str(label)


def act_on(deps: TurnDeps, reading: Reading) -> ToolCallPart | TurnAnswer | None:
    """A reading as the call of a tool, or as words where code answers it. None: neither."""
    call_id = f"routed_{secrets.token_hex(6)}"
    if reading.request is not None and deps.draft is None:
        arguments = reading.request.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True)
        deps.last_query = reading.request
        return ToolCallPart(tool_of(reading.request), arguments, tool_call_id=call_id)
    act = answered(deps, reading)
    if isinstance(act, Call):
        run = str(act.arguments.get("run", ""))
        return stage_call(act.tool, {k: v for k, v in act.arguments.items() if k != "run"}, run, call_id)
    return act


def choice_schema(labels: Sequence[str]) -> Mapping[str, object]:
    """JSON Schema of a choice: one of the labels, or none of them."""
    return {
        "type": "object",
        "properties": {"label": {"enum": [*labels, NONE]}},
        "required": ["label"],
        "additionalProperties": False,
    }


def messages(words: str, labels: Sequence[str], state: str) -> list[ModelMessage]:
    """The request: the examples of each label that are nearest to the words as turns, the likeliest label's last."""
    turns: list[ModelMessage] = []
    for label in reversed(labels):
        for example in reversed(reader().examples_near(words, label, _SHOTS)):
            turns.append(ModelRequest([UserPromptPart(example)]))
            turns.append(ModelResponse([TextPart(json.dumps({"label": label}))]))
    asked = f"(Where things stand: {state}.)\n{words[:_WORDS_CHARACTERS]}"
    first, *rest = [*turns, ModelRequest([UserPromptPart(asked)])]
    assert isinstance(first, ModelRequest)
    return [ModelRequest(first.parts, instructions=_INSTRUCTIONS), *rest]
