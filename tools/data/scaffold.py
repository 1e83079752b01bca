"""A described behaviour on disk: its folder, and further target cases that a served model proposes.

The user sees these cases and may drop any.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write, new_folder
from tunesmith.tools.core.local_paths import bundled_behaviour
from tunesmith.tools.core.stats import detectable_text, minimum_detectable_effect
from tunesmith.tools.core.yaml_file import dump_yaml
from tunesmith.tools.data.behaviour import load_behaviour, spec_text
from tunesmith.tools.data.description import Description
from tunesmith.tools.data.draw import in_turn
from tunesmith.tools.data.near_misses import formed_near_misses
from tunesmith.tools.data.row_checks import prompt_problem
from tunesmith.tools.data.similarity import Likeness
from tunesmith.tools.data.spec import ANSWER_CHARACTERS_MAX, Spec
from tunesmith.tools.data.spec_suites import HARD, HEADERS, NEAR_MISSES, TARGET, as_yaml, open_test, write_suites
from tunesmith.tools.data.writer_requests import (
    distinct_texts,
    kind_of,
    list_start,
    listed_topics,
    topics_request,
    written_message,
)
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.serving.spec import MAX_ANSWER_TOKENS

_NEAR_MISSES, _TEST_SEED = 12, 880_402
"""Near misses that are made in code for the suite, and what they are drawn with: enough to notice an answer that comes
always. Critique puts those beside them that a writer made and a reader checked."""
SPEC, REHEARSAL = "behaviour.yaml", "rehearsal.txt"
SUITE, NEAR_MISS_SUITE, HARD_SUITE = (f"suites/{name}" for name in (TARGET, NEAR_MISSES, HARD))


def check_answer_lengths(description: Description) -> None:
    """Raises BadInput for an answer that no model here could give whole."""
    for number, example in enumerate(description.examples, 1):
        if len(example.answer) > ANSWER_CHARACTERS_MAX:
            raise BadInput(
                f"the answer of example {number} has {len(example.answer):,} characters; a model is given "
                f"{MAX_ANSWER_TOKENS:,} tokens for an answer, about {ANSWER_CHARACTERS_MAX:,} characters: shorten it, "
                "or leave it out"
            )


def write_behaviour(spec: Spec, parent: Path, *, trained: Collection[str] = (), judged: bool = True) -> Path:
    """Write the folder of a behaviour below `parent` and return it: its spec, its suites, ordinary prompts.

    It appears whole or not at all, under the spec's name or the next that is free (`name-2`); nothing is ever replaced.
    Messages that are `trained` on are no cases. `judged`: a judge reads what code cannot tell. Raises BadInput for a
    text that a suite cannot hold, and for an answer that is too long.
    """
    check_answer_lengths(spec)

    def fill(folder: Path) -> None:
        atomic_write(folder / SPEC, spec_text(spec))
        examples = (
            [] if spec.blind_sha256 else [example.prompt for example in spec.examples]
        )  # else they are trained on
        asked = [text for text in examples if text not in trained]
        near = [] if spec.every_message else formed_near_misses(spec, _TEST_SEED, asked, tests=True)[:_NEAR_MISSES]
        write_suites(spec, folder / "suites", near_misses=near, trained=trained, judged=judged)
        atomic_write(folder / REHEARSAL, (bundled_behaviour() / REHEARSAL).read_bytes())
        if load_behaviour(str(folder)) != spec.model_copy(update={"blind": ()}):
            raise BadInput("the description holds a text that its file does not give back; put it in other words")

    return new_folder(parent, spec.name, fill)


_SHOTS = 4
"""Examples that a writer goes on from; another few for each message, so that messages differ."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a further message is about, and the examples that it is shown behind."""

    row_id: str
    subject: str
    shots: tuple[int, ...]


def draw_row(behaviour: Spec, subjects: Sequence[str], seed: int, index: int) -> Subject:
    """What message number `index` is about: the subjects in turn, each once before any comes again."""
    rng = random.Random(f"{seed}/{index}")
    subject = in_turn(subjects, str(seed), index) if subjects else ""
    count = len(behaviour.examples)
    return Subject(f"w{index:05d}", subject, tuple(rng.sample(range(count), min(_SHOTS, count))))


def case_request(behaviour: Spec, drawn: Subject, model: str, temperature: float) -> ChatRequest:
    """Asks for one message about the drawn subject: the writer goes on with a list of such messages."""
    prompts = [behaviour.examples[shot].prompt for shot in drawn.shots]
    about = f" The last one is about: {drawn.subject}." if drawn.subject else ""
    asked = f"Messages that different people sent. What all of them have in common: {kind_of(behaviour)}.{about}"
    end = f"\n{len(prompts) + 2}." if any("\n" in text for text in prompts) else "\n"
    tokens = max(60, round(max(map(len, prompts)) * 0.6))
    return list_start(asked, prompts, model, drawn.row_id, tokens, temperature, {"top_p": 0.95, "stop": [end]})


CASE_SEED = 880_401
"""Of proposed cases: rows for training are drawn with the seed of `generate`."""
_ALIKE = 85.0
"""Similarity, of 100, from which two cases ask the same."""
_TEMPERATURE = 0.8
_TRIES = 3
"""What is lacking is asked for again; a small model repeats itself."""
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
    behaviour: Spec, chat: ChatClient, *, model: str, count: int, concurrency: int = 16
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
            requests = [case_request(behaviour, one, model, _TEMPERATURE) for one in drawn]
            asked += wanted
            for response in await _answers(client, requests, concurrency):
                prompt = written_message(response.text)
                if prompt_problem(behaviour, prompt) or seen.match(prompt, _ALIKE, digits_count=True):
                    continue
                seen.add(prompt, prompt)
                prompts.append(prompt)
    chosen = tuple(prompts[:count])
    cases = len(behaviour.examples) + len(chosen)
    return Proposed(chosen, asked, detectable_text(cases), minimum_detectable_effect(cases))


async def _subjects(client: ChatClient, behaviour: Spec, model: str, count: int, concurrency: int) -> list[str]:
    prompts, several = [example.prompt for example in behaviour.examples], range(max(2, -(-count // 8)))
    requests = [topics_request(behaviour, {}, prompts, model, f"s{n:03d}", CASE_SEED) for n in several]
    answers = await _answers(client, requests, concurrency)
    return distinct_texts(topic for answer in answers for topic in listed_topics(answer.text))


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


def add_cases(suite: Path, behaviour: Spec, prompts: Sequence[str], *, judged: bool = True) -> None:
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
