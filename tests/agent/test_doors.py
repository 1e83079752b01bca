"""The command line between other programs: full and narrow pipes, words that are no words, and columns of one name."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.stub_driver import StubDriver
from tests.fixtures.tables import table
from tests.fixtures.terminal import COMMAND, Tunesmith
from tunesmith.agent.commands.places import is_known
from tunesmith.agent.commands.settings import load
from tunesmith.agent.doctor import examine_driver, missing
from tunesmith.memory.errors import BadInput


@pytest.fixture
def tunesmith(tmp_path: Path) -> Tunesmith:
    home = tmp_path / "home"
    stored_runs.finished_run(home)
    found = Tunesmith(home)
    assert found("runs", "list").returncode == 0  # what ended while nobody watched is told once
    return found


@pytest.mark.heavy
@table("argv", [["runs", "list"], ["runs", "list", "--json"], ["runs", "sql", "SELECT 1", "--json"]])
def test_a_full_stdout_is_told_as_that_and_not_as_a_full_home(tunesmith: Tunesmith, argv: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *argv], env=tunesmith.env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "tunesmith: what was to be printed could not be written: No space left on device\n"


@pytest.mark.heavy
@table("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_takes_a_table_and_a_document(tunesmith: Tunesmith, encoding: str) -> None:
    shown = tunesmith("show", "r1", PYTHONIOENCODING=encoding)
    assert shown.returncode == 0 and "base" in shown.stdout, shown.stderr
    done = subprocess.run(
        [*COMMAND, "runs", "sql", "SELECT 'é – 😀' AS x", "--json"],
        env={**tunesmith.env, "PYTHONIOENCODING": encoding}, capture_output=True,
    )  # fmt: skip
    assert json.loads(done.stdout.decode(encoding))["rows"] == [{"x": "é – 😀"}]


@table(
    ("argv", "told"),
    [
        (["show", "\udcff"], "not UTF-8 text"),
        (["runs", "sql", "SELECT '\udcff'"], "surrogates not allowed"),
        (["-p", "\udcff hello"], "not UTF-8 text (byte 1 is 0xFF)"),
        (["-p", "/report r1"], "/report belongs to the conversation's prompt"),
        (["-p", "hello", "runs", "list"], "leave -p or 'runs' out"),
        (["compare", "r1", "--arms", "base,base"], "cannot be compared with itself"),
    ],
)
def test_what_is_no_question_is_one_sentence(tunesmith: Tunesmith, argv: list[str], told: str) -> None:
    done = tunesmith(*argv)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tunesmith.home / "logs" / "errors.log").exists()


def test_columns_of_one_name_are_all_told(tunesmith: Tunesmith) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 3 AS 'a:1', 4 AS a"
    assert list(tunesmith.json("runs", "sql", sql)["rows"][0].values()) == [1, 2, 3, 4]
    joined = tunesmith.json("runs", "sql", "SELECT * FROM v_runs JOIN v_steps USING (run) LIMIT 1")
    assert len(joined["rows"][0]) == len(joined["columns"]) and {"status", "status:1"} <= set(joined["columns"])


def test_what_an_agent_would_be_told_is_json_too(tunesmith: Tunesmith) -> None:
    assert tunesmith.json("mcp", "add", "codex", "--dry-run")["would_run"][0] == "codex"


@pytest.mark.heavy
def test_words_are_read_from_stdin_too(tunesmith: Tunesmith) -> None:
    said = tunesmith("-p", "how did r1 go?")
    piped = subprocess.run(
        [*COMMAND, "-p", "-"], env=tunesmith.env, input="how did r1 go?\n", capture_output=True, text=True
    )
    assert (piped.returncode, piped.stdout) == (0, said.stdout) and said.stdout


def settings_of(home: Path, text: str = "", **environ: str) -> object:
    home.mkdir(exist_ok=True)
    (home / "settings.toml").write_text(text, encoding="utf-8")
    return load({"TUNESMITH_HOME": str(home), **environ})


def test_a_mark_of_an_editor_before_the_settings_is_no_mistake(tmp_path: Path) -> None:
    assert settings_of(tmp_path / "h", "\ufeff[driver]\nname = 'x'\n").driver.name == "x"


@table("text", ["[driver]\nrouting = 'Auto'", "[driver]\ncontext_tokens = -1"])
def test_a_wrong_setting_says_what_it_takes(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"driver\.(routing is 'Auto'.*true, false or auto|context_tokens .*above 0)"):
        settings_of(tmp_path / "h", text)


def test_settings_that_never_end_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "settings.toml")
    with pytest.raises(BadInput, match="not a regular file"):
        load({"TUNESMITH_HOME": str(tmp_path)})


def test_a_driver_that_does_not_answer_is_not_called_served_and_nothing_is_kept_of_it(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        settings = settings_of(tmp_path / "h", TUNESMITH_DRIVER=f"http://{address}/v1")
        found = examine_driver(settings, start=False)
    assert str(found["state"]).startswith(f"does not answer at {address}: ") and "level" not in found
    assert found["model"] == "default" and not (tmp_path / "h" / "driver-probe.json").exists()


def test_the_doctor_sends_an_endpoint_its_tasks_where_that_is_asked_for_and_keeps_what_it_found(tmp_path: Path) -> None:
    with contextlib.closing(StubDriver(lambda body: "I do not know.")) as stub:
        settings = settings_of(tmp_path / "h", TUNESMITH_DRIVER=stub.url)
        before = examine_driver(settings, start=False)
        assert "doctor --driver" in str(before["level"]) and stub.requests == []
        found = examine_driver(settings, start=True)
        assert (found["state"], found["level"]) == ("served", "fallback")
        assert "choice" in str(found["tasks_failed"]) and "examined_seconds" in found
        asked = len(stub.requests)
        assert examine_driver(settings, start=False)["level"] == "fallback" and len(stub.requests) == asked


@table("named", ["nowhere/at-all", "./none", "ftp://x/v1", ""])
def test_a_driver_that_is_not_here_is_not_said_to_start(tmp_path: Path, named: str) -> None:
    settings = settings_of(tmp_path / "h", TUNESMITH_DRIVER=named)
    state = str(examine_driver(settings, start=False)["state"])
    assert "starts it" not in state and ("ftp" not in named or "cannot be used" in state)


def test_a_wrong_name_of_vllm_is_not_answered_with_a_set_up(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "h", TUNESMITH_VLLM="/gone/vllm")
    [line] = missing({}, settings)
    assert "TUNESMITH_VLLM names /gone/vllm" in line and "mend that name" in line and "setup" not in line


@table(
    ("model", "known"),
    [("8b", True), ("llama3", True), ("", True), ("bundled", True), ("Qwen/Qwen3-8B", True), ("qwen3 8b", True),
     ("demo", True), ("endpoint", True), ("banana", False), ("somebody/private-7b", False), ("private-7b", False),
     ("attacker/Qwen3-8B", False), ("https://huggingface.co/Qwen/Qwen3-8B", False), ("~qwen3-8b", False),
     ("/etc", False), ("../x", False), ("~nobody-here/x", False)],
)  # fmt: skip
def test_leave_is_asked_for_exactly_what_would_be_looked_at(model: str, known: bool) -> None:
    assert is_known(model) is known


def test_what_lies_here_under_a_models_name_is_looked_at_only_with_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Qwen3-8B", "demo"):
        (tmp_path / name).mkdir()
        assert not is_known(name)
