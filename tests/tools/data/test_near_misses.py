"""Near misses: kept messages edited until the reader takes them for another kind, in any language."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.fixtures.behaviours import PICKUP
from tests.fixtures.ordinary_behaviours import BEHAVIOURS
from tests.fixtures.scripted_asker import Answering
from tests.fixtures.tables import table
from tunesmith.tools.data.augmentation import formed_near_misses, near_misses
from tunesmith.tools.data.behaviour import spec_of, untested, write_behaviour
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import asked_near_misses
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

PARCELS = spec_of(PICKUP, "x")
CHINESE = BEHAVIOURS["chinese-reviews"].spec("chinese-reviews").model_copy(update={"language": "Chinese"})
WORDS = "sofa lamp piano crate fridge mirror ladder bicycle carpet wardrobe statue barrel canoe harp tent"
THINGS = WORDS.split(" ")
KEPT = [f"please collect the {thing} on Friday at 9 am" for thing in THINGS]


def editor_of(edit: Callable[[str], str], finish: str = "stop") -> Answering:
    """Makes of the message that it is to edit what `edit` does."""

    def answer(request: ChatRequest) -> ChatResponse:
        [message] = re.findall(r"Message: (.+)", str(request.messages[-1]["content"]))[:1]
        return ChatResponse(id=request.id, text=edit(message), finish_reason=finish)

    return Answering(answer)


def everything(texts: Sequence[str]) -> list[str]:
    return list(texts)


def about(message: str) -> str:
    return f"Who invented the {message.split()[3]}, and was it a {message.split()[3][::-1]} at first?"


def test_a_near_miss_is_an_edit_of_a_kept_message_and_a_fifth_at_most_is_a_fixed_form() -> None:
    made = near_misses(PARCELS, editor_of(about), 20, 3, KEPT, everything)
    formed = set(formed_near_misses(PARCELS, 3, KEPT))
    edited = [text for text in made if text.startswith("Who invented the")]
    assert sum(text in formed for text in made) == 4 and len(edited) >= 8


def test_what_the_reader_takes_for_the_kind_is_none() -> None:
    made = near_misses(PARCELS, editor_of(about), 20, 3, KEPT, lambda texts: [t for t in texts if "harp" in t])
    assert [text for text in made if text.startswith("Who")] == ["Who invented the harp, and was it a prah at first?"]


def test_what_the_reader_left_lacking_is_asked_for_again_and_no_more_than_is_wanted_comes() -> None:
    refused = iter([True, True, False])  # most of the first and second edit, none of the third
    rng = random.Random(2)
    editor = editor_of(
        lambda message: f"Who wrote {' '.join(''.join(rng.choices('abdeilnorst', k=6)) for _ in range(4))}?"
    )
    made = near_misses(PARCELS, editor, 20, 3, KEPT, lambda texts: texts[:2] if next(refused) else list(texts))
    formed = set(formed_near_misses(PARCELS, 3, KEPT))
    assert len([text for text in made if text not in formed]) == 20 - 4
    assert next(refused, None) is None, "three rounds at most"


@table(
    "editor",
    [
        editor_of(lambda message: message),  # nothing was changed
        editor_of(lambda message: ""),
        editor_of(lambda message: "[the message]"),
        editor_of(about, finish="length"),  # cut off
    ],
)
def test_what_is_no_other_message_is_left_out(editor: Answering) -> None:
    made = near_misses(PARCELS, editor, 20, 3, KEPT, everything)
    assert editor.asked and set(made) <= set(formed_near_misses(PARCELS, 3, KEPT))


def test_the_users_own_come_first_and_need_no_writer() -> None:
    own = tuple(f"Is {thing} a French word?" for thing in THINGS[:6])
    spec = PARCELS.model_copy(update={"near_misses": own})
    editor = editor_of(about)
    assert near_misses(spec, editor, 6, 3, KEPT, everything)[:6] == list(own)
    assert near_misses(spec, editor, 4, 3, [], everything)[:4] == list(own[:4])


def test_a_message_without_spaces_is_a_message() -> None:
    kept = ["物流很快，很满意", "质量太差了", "一般般吧，没什么感觉", "非常喜欢这个颜色", "再也不买了，骗人的"]
    edits = iter(
        ["为什么物流这么重要", "质量管理是什么意思", "请写一首关于感觉的诗", "什么颜色适合夏天", "骗人用英语怎么说"] * 9
    )
    made = near_misses(CHINESE, editor_of(lambda message: next(edits)), 5, 3, kept, everything)
    assert "为什么物流这么重要" in made or "什么颜色适合夏天" in made


@table(("language", "sign"), [("German", "„"), ("Chinese or Japanese", "“"), ("Norwegian", "?")])
def test_fixed_forms_are_in_the_behaviours_language_where_it_is_known(language: str, sign: str) -> None:
    def forms(spec: Spec, *, tests: bool) -> set[str]:
        return set(formed_near_misses(spec, 1, KEPT, tests=tests))

    spec = PARCELS.model_copy(update={"language": language})
    assert any(sign in text for text in forms(spec, tests=False))
    assert not forms(spec, tests=False) & forms(spec, tests=True)


MOOD = spec_of(
    {
        "name": "mood", "when": "somebody hands a note in", "what": "one word",
        "attributes": [{"name": "label", "values": {"GLAD": {"means": "a good day"}, "LOW": {"means": "a bad one"}}}],
        "answer": {"form": "text", "template": "{label}"},
        "examples": [
            {"prompt": "the collar was handed back to anybody who asked", "answer": "GLAD"},
            {"prompt": "it rained on our garden wall all Sunday", "answer": "LOW"},
            {"prompt": "she sang in the kitchen before eight", "answer": "GLAD"},
        ],
        "near_misses": ["Who wrote the song of the wall?", "What is a good note?", "How long is a garden hose?"],
    },
    "x",
)  # fmt: skip


@pytest.mark.parametrize("tests", [False, True])
def test_no_word_is_picked_out_of_a_message_and_an_attributes_name_stands_in_none(tests: bool) -> None:
    messages = [example.prompt for example in MOOD.examples]
    made = formed_near_misses(MOOD, 5, messages, tests=tests)
    rests = [text.replace(message, "") for text in made for message in messages if message in text]
    assert len(rests) > 2 and any("GLAD" in text for text in made)
    said = " ".join([*rests, *(text for text in made if not any(message in text for message in messages))])
    words = {*re.findall(r"\w+", " ".join(messages)), "label", "somebody", "hands"}
    assert not {word for word in words if len(word) > 4} & set(re.findall(r"\w+", said))


def test_what_a_suite_of_its_own_asks_is_not_trained_on(tmp_path: Path) -> None:
    folder = write_behaviour(MOOD, tmp_path)
    assert untested(MOOD, str(folder)).near_misses == MOOD.near_misses[1::2]
    asked = (folder / "suites" / "over-trigger.yaml").read_text()
    assert [text in asked for text in MOOD.near_misses] == [True, False, True]


@pytest.mark.parametrize(("given", "asked"), [(0, 0), (1, 1), (5, 3), (20, 10), (24, 10), (61, 10)])
def test_of_many_near_misses_ten_are_cases_from_all_over_the_list_and_the_others_teach(given: int, asked: int) -> None:
    texts = tuple(f"What is number {n}?" for n in range(given))
    cases = asked_near_misses(MOOD.model_copy(update={"near_misses": texts}))
    places = [texts.index(text) for text in cases]
    assert len(cases) == asked and places == sorted(set(places))
    assert all(1 < later - earlier <= 1 + given / asked for earlier, later in itertools.pairwise(places))
    assert not places or given - places[-1] <= 1 + given / asked
