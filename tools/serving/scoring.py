"""How likely a served model finds a text that is there already: log probabilities of every token of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
from pydantic import BaseModel, ValidationError

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.connections import Connections
from tunesmith.tools.serving.servers import Server

_TIMEOUT_S = 600.0
"""Of the longest text, on a CPU."""


class _Logprob(BaseModel):
    logprob: float


class _Choice(BaseModel):
    prompt_logprobs: list[dict[int, _Logprob] | None]


class _Answer(BaseModel):
    choices: list[_Choice]


async def score_prompt(server: Server, model: str, tokens: Sequence[int]) -> list[float]:
    """The log probability of each token of a text but the first, which nothing stands before. Raises StepFailed.

    The text must be shorter than the server's context by one token: vLLM has to write something.
    """
    address = read_address(server.url)
    # prompt_logprobs=0: of no other token than the one that stands there.
    body = {"model": model, "prompt": list(tokens), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    async with Connections(address, server.key, timeout_s=_TIMEOUT_S, listener=server.listener) as connections:
        try:
            status, document = await connections.post("/v1/completions", body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # it is gone, too slow, or no JSON
            raise StepFailed(f"the server scored no text: {type(error).__name__}: {error}") from error
    if status != 200:
        raise StepFailed(f"the server scored no text: HTTP {status}: {str(document)[:200]}")
    return _scored(tokens, document)


def _scored(tokens: Sequence[int], document: object) -> list[float]:
    try:
        places = _Answer.model_validate(document).choices[0].prompt_logprobs
        return [place[token].logprob for token, place in zip(tokens, places, strict=True) if place is not None]
    except (ValidationError, IndexError, KeyError, ValueError) as error:  # another server, or a version that changed
        raise StepFailed(f"the server's scores of a text are not as vLLM gives them: {str(error)[:200]}") from error
