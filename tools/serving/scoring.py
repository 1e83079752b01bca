"""How likely a served model finds texts that are there already: log probabilities of every token of a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from pydantic import BaseModel, ValidationError

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.connections import Connections
from tunesmith.tools.serving.servers import Server

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a text, as the model saw it coming."""

    logprob: float
    """Natural logarithm of its probability after all that stands before it."""
    likeliest: dict[int, float]
    """The likeliest tokens in its place, itself included → their log probabilities; empty where none were asked for."""


class _Logprob(BaseModel):
    logprob: float


class _Choice(BaseModel):
    prompt_logprobs: list[dict[int, _Logprob] | None]


class _Answer(BaseModel):
    choices: list[_Choice]


Asked = tuple[Sequence[int], int]
"""The tokens of a text, and how many of the likeliest tokens to tell in the place of each; 0: its own alone."""


async def score_prompts(
    server: Server, model: str, texts: Sequence[Asked], *, concurrency: int
) -> list[list[ScoredToken | None]]:
    """Of every text, every token; None for the first, which nothing stands before. Raises StepFailed.

    A text must be shorter than the server's context by one token: vLLM has to write something.
    """
    gate = asyncio.Semaphore(concurrency)
    address = read_address(server.url)
    async with Connections(address, server.key, timeout_s=_TIMEOUT_S, listener=server.listener) as connections:

        async def one(tokens: Sequence[int], likeliest: int) -> list[ScoredToken | None]:
            body = {
                "model": model, "prompt": list(tokens), "max_tokens": 1, "temperature": 0, "prompt_logprobs": likeliest,
            }  # fmt: skip
            async with gate:
                status, document = await connections.post("/v1/completions", body)
            if status != 200:
                raise StepFailed(f"the server scored no text: HTTP {status}: {str(document)[:200]}")
            return _scored(tokens, document, likeliest)

        try:
            return list(await asyncio.gather(*(one(*text) for text in texts)))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise StepFailed(f"the server scored no text: {type(error).__name__}: {error}") from error


def _scored(tokens: Sequence[int], document: object, likeliest: int) -> list[ScoredToken | None]:
    try:
        places = _Answer.model_validate(document).choices[0].prompt_logprobs
        scored = [_token(token, place, likeliest) for token, place in zip(tokens, places, strict=True)]
    except (ValidationError, IndexError, KeyError, ValueError) as error:
        raise StepFailed(f"the server's scores of a text are not as vLLM gives them: {str(error)[:200]}") from error
    return scored


def _token(token: int, place: Mapping[int, _Logprob] | None, likeliest: int) -> ScoredToken | None:
    if place is None:
        return None
    kept = {other: round(of.logprob, 6) for other, of in place.items()} if likeliest else {}
    return ScoredToken(place[token].logprob, kept)
