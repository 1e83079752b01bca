"""The context of a run: as many tokens as its longest case needs, never more than its model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput
from tunesmith.tools.evaluation import context
from tunesmith.tools.evaluation.context import Need, choose_context, longest, refuse_longer
from tunesmith.tools.suites.case import Case


def case(name: str, chars: int, **more: Any) -> Case:
    return Case(case_id=name, suite="s", messages=({"role": "user", "content": "x" * chars},), **more)


def need(cases: list[Case], folder: Path | None, answer: int = 96, **more: Any) -> Need:
    return longest(cases, lambda case: int(case.sampled("max_tokens", answer)), folder, **more)


@pytest.mark.parametrize(
    "chars, tokens", [(10, 2048), (1800, 2048), (2000, 4096), (3900, 4096), (4000, 8192), (40_000, 65_536)]
)
def test_the_smallest_context_that_holds_the_longest_case_is_taken(tmp_path: Path, chars: int, tokens: int) -> None:
    model = make_tiny_model(tmp_path / "model")  # one token a byte
    found = need([case("short", 5), case("long", chars), case("other", 7)], model)
    assert found.case_id == "long" and found.prompt_tokens == chars
    assert choose_context(found, 0, 0) == tokens >= chars + 96


def test_tools_answers_and_what_stands_before_all_count(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    plain = need([case("c", 3000)], model)
    tool = {"type": "function", "function": {"name": "f" * 500}}
    assert need([case("c", 3000, tools=(tool,))], model).tokens > plain.tokens + 500
    assert need([case("c", 3000, sampling={"max_tokens": 900})], model).tokens == plain.tokens + 900 - 96
    before = [{"role": "system", "content": "y" * 700}]
    assert need([case("c", 3000)], model, before=before).prompt_tokens == plain.prompt_tokens + 700
    answers = [case("few", 3000), case("many", 2500, sampling={"max_tokens": 1000})]
    assert need(answers, model).case_id == "many", "the longest is the one that needs the most"


def test_no_tokenizer_is_loaded_where_bytes_alone_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "counter_of", lambda folder: pytest.fail("a tokenizer was loaded"))
    assert choose_context(need([case("c", 1800)], tmp_path), 0, 0) == 2048


def test_a_token_of_several_bytes_is_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    spoken = Case(case_id="c", suite="s", messages=({"role": "user", "content": "word " * 1500},))
    assert need([spoken], tmp_path).prompt_tokens == 1500 and choose_context(need([spoken], tmp_path), 0, 0) == 2048


def test_what_does_not_fit_is_refused_by_name_with_the_numbers(tmp_path: Path) -> None:
    found = need([case("short", 5), case("long", 5000)], make_tiny_model(tmp_path / "model"))
    told = "the prompt of case long has 5000 tokens and its answer may have 96"
    with pytest.raises(BadInput, match=f"{told}: context_tokens=4096 does not hold it; leave context_tokens out"):
        choose_context(found, 4096, 0)
    with pytest.raises(BadInput, match=f"{told}: this model takes 4096 in all; shorten the case"):
        choose_context(found, 0, 4096)
    with pytest.raises(BadInput, match="context_tokens=9000 is more than this model takes; give at most 8192"):
        choose_context(found, 9000, 8192)
    with pytest.raises(BadInput, match=r"with the prompt before it.*have 5000.*larger context_tokens"):
        refuse_longer(found, 5000)
    assert choose_context(found, 6000, 8192) == 6000 and choose_context(found, 0, 6000) == 6000


def test_a_model_that_takes_less_than_is_usual_is_asked_within_what_it_takes(tmp_path: Path) -> None:
    found = need([case("c", 300)], make_tiny_model(tmp_path / "model"))
    assert choose_context(found, 0, 512) == 512 and choose_context(found, 0, 4096) == 2048
    with pytest.raises(BadInput, match="this model takes 300 in all"):
        choose_context(found, 0, 300)


def test_by_bytes_alone_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")  # of a version that cannot be read
    for folder in (None, tmp_path):
        found = need([case("c", 9000)], folder)
        assert not found.counted and choose_context(found, 0, 0) == 8192
        assert choose_context(found, 2048, 0) == 2048
