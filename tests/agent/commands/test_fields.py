"""A request means the same as flags, as words at the prompt and as a file; what is wrong is left to the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.agent.commands import fields
from tunesmith.agent.commands.parser import parse
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import parse_request


def by_flags(stage: str, *argv: str) -> dict[str, Any]:
    args, rest = parse([stage, *argv])
    return fields.of_flags(args, catalog.BY_NAME[stage].load().request) | fields.of_rest(rest)


def by_words(stage: str, words: str) -> dict[str, Any]:
    return fields.of_words(words, catalog.BY_NAME[stage].load().request)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--arm", "merged"], "arm=merged"),
        (["--max-tokens", "32", "--concurrency=4"], "max_tokens=32 concurrency=4"),
        (["--max_tokens", "32"], "max-tokens=32"),
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
        by_words("baseline", "suites=a.yaml,b.yaml"),
    ):
        assert parse_request("baseline", given).suites == wanted  # type: ignore[attr-defined]


def test_a_bare_flag_is_true_and_can_be_false() -> None:
    assert parse_request("deploy", by_flags("deploy", "--rollback")).rollback is True  # type: ignore[attr-defined]
    assert parse_request("deploy", by_words("deploy", "rollback")).rollback is True  # type: ignore[attr-defined]
    assert parse_request("deploy", by_words("deploy", "rollback=false")).rollback is False  # type: ignore[attr-defined]


def test_every_field_of_every_stage_has_a_flag() -> None:
    for entry in catalog.STAGES:
        model = entry.load().request
        for name, info in model.model_fields.items():
            value = info.get_default(call_default_factory=True)
            text = str(value[0] if isinstance(value, tuple) and value else value or "x")
            assert name in by_flags(entry.name, f"--{name}", text)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"x"'])
def test_a_request_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BadInput, match=r"r\.json"):
        fields.of_file(str(tmp_path / "r.json"))


def test_an_open_quote_is_told() -> None:
    with pytest.raises(BadInput, match="quot"):
        by_words("evaluate", "system_prompt='open")
