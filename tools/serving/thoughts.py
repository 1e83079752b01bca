"""Answers of a model that thinks first: what follows the thought, or that the thought never ended."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.tools.serving.client import ChatResponse

_BEGIN, _END = "<think>", "</think>"
CUT_OFF = "cut off in its thoughts"
"""How the error of an answer begins that never came: it is neither a failure nor a fault of the server."""


def without_thought(response: ChatResponse) -> ChatResponse:
    """The answer alone, up to and including the last `</think>` cut off; an error where the thought never ended.

    The prompt may have opened the thought, so an answer that used up its tokens without ending one is cut off in it.
    A server that takes thoughts out itself, as vLLM does of gpt-oss, leaves nothing of such an answer.
    """
    if response.error or response.tool_calls:
        return response if response.error else replace(response, text=_after(response.text))
    text = response.text
    if _END in text:
        return replace(response, text=_after(text))
    if text.lstrip().startswith(_BEGIN) or response.finish_reason == "length":
        error = f"{CUT_OFF} after {response.completion_tokens} tokens; set a larger thinking_tokens in a new baseline"
        return replace(response, error=error)
    return response


def _after(text: str) -> str:
    return text.rpartition(_END)[2].lstrip() if _END in text else text
