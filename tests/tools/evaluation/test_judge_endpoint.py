"""A judge at an endpoint: what its plan says of the way there, and when its key is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.memory.errors import BadInput
from tunesmith.tools.evaluation.judge import Models, find_judge


def judge(home: Path, url: str, *, key: bool, allowed: bool = False) -> Models:
    (home / "judge.key").write_text("the-key-SECRET\n")
    (home / "judge.key").chmod(0o600)
    lines = ["[judge]", f'endpoint = "{url}"', 'name = "big"']
    lines += ['key_file = "judge.key"'] if key else []
    lines += ["allow_plain_http = true"] if allowed else []
    (home / "settings.toml").write_text("\n".join(lines))
    return Models(find_judge("endpoint", home))


def test_a_key_in_clear_is_refused_by_the_plan_unless_settings_allow_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\[judge\].*10\.0\.0\.5:8000 over plain http.*allow_plain_http = true") as no:
        judge(tmp_path, "http://10.0.0.5:8000/v1", key=True)
    assert "SECRET" not in str(no.value)
    (note,) = judge(tmp_path, "http://10.0.0.5:8000/v1", key=True, allowed=True).notes
    assert "the answers that are judged and its key go to 10.0.0.5:8000 over plain http" in note
    (note,) = judge(tmp_path, "http://10.0.0.5:8000/v1", key=False).notes
    assert "everybody on the way there can read them" in note and "key" not in note


def test_a_judge_of_this_machine_or_over_https_needs_no_note(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:8000/v1", "http://[::1]:8000", "https://judge.example/v1"):
        assert judge(tmp_path, url, key=True).notes == () and "SECRET" not in repr(judge(tmp_path, url, key=True))


def test_a_judges_address_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1@evil.example/v1", "http://2130706433/v1", "http://127.0.0.1./v1"):
        with pytest.raises(BadInput, match="endpoint"):
            judge(tmp_path, url, key=False)
