"""How further test messages of a behaviour are asked for, about subjects that the model names first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.tools.data.answers import answer_problem, instructions, json_schema
from tunesmith.tools.data.message_checks import LIKE_AN_EXAMPLE, prompt_problem
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.writer_requests import distinct, kind_of, listed_topics, topics_request, written_message
from tunesmith.tools.serving.client import ChatRequest

__all__ = [
    "LIKE_AN_EXAMPLE", "ExampleBehaviour", "answer_problem", "distinct", "draw_row", "instructions", "json_schema",
    "message_in", "message_request", "prompt_problem", "subject_request", "subjects_in",
]  # fmt: skip

ExampleBehaviour = Spec
_SHOTS = 4
_GO_ON = {"continue_final_message": True, "add_generation_prompt": False, "top_p": 0.95}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a further message is about, and the examples that it is shown behind."""

    row_id: str
    subject: str
    shots: tuple[int, ...]


def draw_row(behaviour: Spec, subjects: Sequence[str], seed: int, index: int) -> Subject:
    """What message number `index` is about: the subjects in turn, each once before any comes again."""
    rng = random.Random(f"{seed}/{index}")
    subject = ""
    if subjects:
        lap, place = divmod(index, len(subjects))
        subject = random.Random(f"{seed}/{lap}").sample(list(subjects), len(subjects))[place]
    count = len(behaviour.examples)
    return Subject(f"w{index:05d}", subject, tuple(rng.sample(range(count), min(_SHOTS, count))))


def subject_request(behaviour: Spec, model: str, seed: int, number: int) -> ChatRequest:
    """Asks for subjects of messages."""
    shown = [example.prompt for example in behaviour.examples]
    return topics_request(behaviour, {}, shown, model, f"s{number:03d}", seed)


def subjects_in(answered: str) -> list[str]:
    """The subjects that an answer lists."""
    return listed_topics(answered)


def message_request(behaviour: Spec, drawn: Subject, model: str, temperature: float) -> ChatRequest:
    """Asks for one message about the drawn subject: the writer goes on with a list of such messages."""
    shown = [behaviour.examples[shot].prompt for shot in drawn.shots]
    about = f" The last one is about: {drawn.subject}." if drawn.subject else ""
    asked = f"Messages that different people sent. What all of them have in common: {kind_of(behaviour)}.{about}"
    begun = "\n".join([*(f"{n}. {text}" for n, text in enumerate(shown, 1)), f"{len(shown) + 1}."])
    end = f"\n{len(shown) + 2}." if any("\n" in text for text in shown) else "\n"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": begun}]
    tokens = max(60, round(max(map(len, shown)) * 0.6))
    return ChatRequest(drawn.row_id, model, messages, tokens, temperature, extra={**_GO_ON, "stop": [end]})


def message_in(drawn: Subject, answered: str) -> str:
    """The message that a writer went on with."""
    return written_message(answered)
