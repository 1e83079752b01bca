"""Further target cases of a behaviour, that a served model proposes; they are shown to the user, who may drop any."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.stats import detectable_text, minimum_detectable_effect
from tunesmith.tools.data.answers import answer_problem, instructions, json_schema
from tunesmith.tools.data.message_checks import LIKE_AN_EXAMPLE, prompt_problem
from tunesmith.tools.data.similarity import Likeness
from tunesmith.tools.data.spec import Spec, dump_yaml
from tunesmith.tools.data.spec_suites import HEADERS, TARGET, as_yaml, open_test
from tunesmith.tools.data.writer_requests import distinct, kind_of, listed_topics, topics_request, written_message
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse

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


CASE_SEED = 880_401
"""Of proposed cases: rows for training are drawn with the seed of `generate`."""
_ALIKE = 85.0
_TEMPERATURE = 0.8
_TRIES = 3
_MORE = re.compile(r"-more-(\d+)$")


@dataclass(frozen=True, slots=True)
class Proposed:
    """Further messages for the target suite, none of them in it yet."""

    prompts: tuple[str, ...]
    asked: int
    """How many messages the model was asked for."""
    detectable: str
    """What the examples and these cases together can show, in a sentence."""
    minimum_detectable_effect: float
    """The same as a share; infinite where nothing can be shown."""


async def propose_cases(
    behaviour: ExampleBehaviour, chat: ChatClient, *, model: str, count: int, concurrency: int = 16
) -> Proposed:
    """Ask a served model for `count` messages that are like neither an example nor one another.

    Fewer come back where the model repeats itself. Raises StepFailed where it does not answer at all.
    """
    prompts: list[str] = []
    seen = Likeness((example.prompt, example.prompt) for example in behaviour.examples)
    asked = 0
    async with chat as client:
        subjects = await _subjects(client, behaviour, model, count, concurrency)
        for attempt in range(_TRIES):
            wanted = round((count - len(prompts)) * 1.5)
            if wanted <= 0:
                break
            drawn = [draw_row(behaviour, subjects, CASE_SEED + attempt, index) for index in range(wanted)]
            requests = [message_request(behaviour, one, model, _TEMPERATURE) for one in drawn]
            asked += wanted
            by_id = {one.row_id: one for one in drawn}
            for response in await _answers(client, requests, concurrency):
                prompt = message_in(by_id[response.id], response.text)
                if prompt_problem(behaviour, prompt) or seen.match(prompt, _ALIKE, digits_count=True):
                    continue
                seen.add(prompt, prompt)
                prompts.append(prompt)
    taken = tuple(prompts[:count])
    cases = len(behaviour.examples) + len(taken)
    return Proposed(taken, asked, detectable_text(cases), minimum_detectable_effect(cases))


async def _subjects(
    client: ChatClient, behaviour: ExampleBehaviour, model: str, count: int, concurrency: int
) -> list[str]:
    requests = [subject_request(behaviour, model, CASE_SEED, n) for n in range(max(2, -(-count // 8)))]
    return distinct(s for response in await _answers(client, requests, concurrency) for s in subjects_in(response.text))


async def _answers(client: ChatClient, requests: Sequence[ChatRequest], concurrency: int) -> list[ChatResponse]:
    """The answers in the order of their requests. Raises StepFailed where there is none."""
    answers: dict[str, ChatResponse] = {}
    await client.complete_many(
        requests, concurrency=concurrency, on_result=lambda response: answers.update({response.id: response})
    )
    answered = [answers[request.id] for request in requests if not answers[request.id].error]
    if requests and not answered:
        raise StepFailed(f"none of {len(requests)} requests was answered: {answers[requests[0].id].error}")
    return answered


def add_cases(suite: Path, behaviour: ExampleBehaviour, prompts: Sequence[str], *, judged: bool = True) -> None:
    """Add messages to a target suite that `write_suites` wrote; what is in it stays, but for its comments.

    Raises BadInput for another file, and leaves it as it was.
    """
    document = yaml.safe_load(suite.read_text())
    try:
        ids = [str(test["metadata"]["case_id"]) for test in document["tests"]]
    except (KeyError, TypeError):
        raise BadInput(f"{suite} is not a target suite of a described behaviour; add a test to it by hand") from None
    numbers = [int(match[1]) for case_id in ids if (match := _MORE.search(case_id))]
    first = max(numbers, default=0) + 1
    added = (open_test(behaviour, prompt, n, judged=judged) for n, prompt in enumerate(prompts, first))
    tests = [as_yaml(behaviour, one) for one in added]
    atomic_write(suite, HEADERS[TARGET] + dump_yaml({**document, "tests": [*document["tests"], *tests]}))
