"""A request means the same as flags, as words at the prompt and as a file; what is wrong is left to the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.commands import fields
from tunesmith.agent.commands.parser import parse
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import parse_request


def by_flags(stage: str, *argv: str) -> dict[str, Any]:
    args, rest = parse([stage, *argv])
    model = catalog.BY_NAME[stage].load().request
    return fields.of_flags(args, model) | fields.of_rest(rest, model)


def by_words(stage: str, words: str) -> dict[str, Any]:
    return fields.of_words(words, catalog.BY_NAME[stage].load().request)


@table(
    ("argv", "words"),
    [
        (["--arm", "merged"], "arm=merged"),
        (["--max-tokens", "32", "--concurrency=4"], "max_tokens=32 concurrency=4"),
        (["--max_tokens", "32"], "max-tokens=32"),
        (["max-tokens=32", "--arm", "merged", "temperature=0.5"], "arm=merged max_tokens=32 temperature=0.5"),
        (["--system_prompt", "be brief, please"], "system_prompt='be brief, please'"),
    ],
)
def test_flags_and_words_make_the_same_request(argv: list[str], words: str) -> None:
    assert parse_request("evaluate", by_flags("evaluate", *argv)) == parse_request(
        "evaluate", by_words("evaluate", words)
    )


def test_a_field_of_several_values_takes_them_in_every_form() -> None:
    wanted = (str(Path.cwd() / "a.yaml"), str(Path.cwd() / "b.yaml"))
    for given in (
        by_flags("baseline", "--suites", "a.yaml", "b.yaml"),
        by_flags("baseline", "--suites", '["a.yaml", "b.yaml"]'),
        by_flags("baseline", "suites=a.yaml,b.yaml"),
        by_words("baseline", "suites=a.yaml,b.yaml"),
    ):
        assert parse_request("baseline", given).suites == wanted  # type: ignore[attr-defined]


def test_a_bare_flag_is_true_and_can_be_false() -> None:
    assert parse_request("deploy", by_flags("deploy", "--rollback")).rollback is True  # type: ignore[attr-defined]
    assert parse_request("deploy", by_words("deploy", "rollback")).rollback is True  # type: ignore[attr-defined]
    assert parse_request("deploy", by_words("deploy", "rollback=false")).rollback is False  # type: ignore[attr-defined]


@pytest.mark.heavy
def test_every_field_of_every_stage_has_a_flag() -> None:
    for entry in catalog.STAGES:
        model = entry.load().request
        for name, info in model.model_fields.items():
            value = info.get_default(call_default_factory=True)
            text = str(value[0] if isinstance(value, tuple) and value else value or "x")
            assert name in by_flags(entry.name, f"--{name}", text)


@table("text", ["", "[1]", "{", '"x"'])
def test_a_request_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BadInput, match=r"r\.json"):
        fields.of_file(str(tmp_path / "r.json"))


@pytest.mark.parametrize("text", ['{"seed": 1, "seed": 2}', '{"mapping": {"user": "a", "user": "b"}}'])
def test_a_name_that_is_given_twice_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BadInput, match=r"r\.json gives '(seed|user)' twice"):
        fields.of_file(str(tmp_path / "r.json"))
    with pytest.raises(BadInput, match="--mapping gives 'a' twice"):
        by_flags("import", "--mapping", '{"a": "1", "a": "2"}')


def test_a_field_is_remembered_as_it_was_typed() -> None:
    args, _ = parse(["train", "--lora-rank", "8", "--seed", "3"])
    assert fields.spelled(args) == {"lora_rank": "--lora-rank", "seed": "--seed"}


def test_an_open_quote_is_told() -> None:
    with pytest.raises(BadInput, match="quot"):
        by_words("evaluate", "system_prompt='open")
