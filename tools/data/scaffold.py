"""A described behaviour on disk, and the plan that teaches it: all that lies between a description and a price."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write, new_folder
from tunesmith.tools.core.local_paths import bundled_behaviour
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.description import Description
from tunesmith.tools.data.near_misses import formed_near_misses
from tunesmith.tools.data.spec import ANSWER_CHARACTERS_MAX, Spec, spec_text
from tunesmith.tools.data.spec_suites import HARD, NEAR_MISSES, TARGET, write_suites
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


def write_behaviour(
    spec: Spec, parent: Path, *, prompts: Sequence[str] = (), trained: Collection[str] = (), judged: bool = True
) -> Path:
    """Write the folder of a behaviour below `parent` and return it: its spec, its suites, ordinary prompts.

    It appears whole or not at all, under the spec's name or the next that is free (`name-2`); nothing is ever replaced.
    `prompts` are further target cases; messages that are `trained` on are none. `judged`: a judge reads what code
    cannot tell. Raises BadInput for a text that a suite cannot hold, and for an answer that is too long.
    """
    check_answer_lengths(spec)

    def fill(folder: Path) -> None:
        atomic_write(folder / SPEC, spec_text(spec))
        shown = [] if spec.blind_sha256 else [example.prompt for example in spec.examples]  # else they are trained on
        asked = [text for text in shown if text not in trained]
        near = [] if spec.every_message else formed_near_misses(spec, _TEST_SEED, asked, tests=True)[:_NEAR_MISSES]
        write_suites(spec, folder / "suites", messages=prompts, near_misses=near, trained=trained, judged=judged)
        atomic_write(folder / REHEARSAL, (bundled_behaviour() / REHEARSAL).read_bytes())
        if load_behaviour(str(folder)) != spec.model_copy(update={"blind": ()}):
            raise BadInput("the description holds a text that its file does not give back; put it in other words")

    return new_folder(parent, spec.name, fill)
