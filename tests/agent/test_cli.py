"""The command line as a user meets it: exit codes, one line per error, JSON where it was asked for."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.terminal import COMMAND, Terminal, Tunesmith
from tunesmith.agent.commands.startup import unexpected
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog

pytestmark = pytest.mark.heavy


def one_run(tunesmith: Tunesmith) -> None:
    """A run whose plan is a look at the machine."""
    plan = tunesmith.home.parent / "look.yaml"
    plan.write_text("name: inspected\nsteps: [inspect]\n")
    assert tunesmith("run", str(plan)).returncode == 0


def test_help_and_version_load_nothing_and_touch_nothing(tunesmith: Tunesmith) -> None:
    for word in ("--help", "--version"):
        done = tunesmith(word)
        assert done.returncode == 0 and done.stdout.startswith(("usage: tunesmith", "tunesmith "))
    assert not tunesmith.home.exists()


def test_every_stage_has_a_command_with_a_flag_per_field(tunesmith: Tunesmith) -> None:
    everything = tunesmith("--help").stdout
    for entry in catalog.STAGES:
        assert re.search(rf"^    {entry.name} ", everything, re.MULTILINE)
        told = tunesmith(entry.name, "--help").stdout
        for name in entry.load().request.model_fields:
            assert (
                f"--{name.replace('_', '-')}" in told
                and "_" not in told.partition("fields of the request")[2].partition(" ")[0]
            )


def test_no_default_is_shown_where_a_value_that_is_left_out_comes_from_elsewhere(tunesmith: Tunesmith) -> None:
    told = " ".join(tunesmith("evaluate", "--help").stdout.split())
    assert told.count("(default: as in the baseline)") == 3 and "(default: 96)" not in told
    assert "(default: as it was measured with)" in " ".join(tunesmith("deploy", "--help").stdout.split())


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["stop", "s6"], "did you mean `tunesmith jobs stop` or `tunesmith serve stop`"),
        (["fast"], "no command 'fast'; `tunesmith --help`"),
        (["bass"], "did you mean 'base'? `tunesmith --help`"),
        (["rows"], "no run has rows yet"),
        (["base", "--modle", "x"], "did you mean 'model'"),
        (["base", "--role", "judge"], "role"),
        (["base", "stray"], "stray"),
        (["base", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["base", "--request", "/nowhere.json"], "/nowhere.json"),
        (["base", "--model", "some/model"], "revision"),
        (["run"], "PLAN.yaml"),
        (["run", "/nowhere.yaml"], "/nowhere.yaml"),
        (["run", "--resume", "r7"], "r7"),
        (["merge"], "no run yet"),
        (["base", "--run", "r7"], "r7"),
        (["base", "--approve", "0123456789ab"], "0123456789ab"),
        (["base", "--yes", "--max-hours", "soon"], "soon"),
        (["base", "--yes", "--max-hours", "-1"], "-1"),
        (["runs", "show", "r7"], "r7"),
        (["runs", "sql", "DROP TABLE runs"], "only reading"),
        (["runs", "--nonsense"], "--nonsense"),
        (["jobs", "attach", "s7"], "s7"),
        (["jobs", "stop", "s7"], "s7"),
        (["compare", "r7"], "r7"),
        (["report", "r7"], "r7"),
        (["suite", "check", "/nowhere.yaml"], "/nowhere.yaml"),
        ([], "terminal"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tunesmith: Tunesmith, argv: list[str], told: str) -> None:
    done = tunesmith(*argv)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tunesmith: ") and told in lines[0], done.stderr
    if tunesmith.home.exists():
        assert Store(tunesmith.home).runs() == []


def test_an_error_is_json_too_where_json_was_asked_for(tunesmith: Tunesmith) -> None:
    done = tunesmith("runs", "show", "r7", "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["event"] == "error" and "r7" in told["message"]


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("argv", "exit_code", "told"),
    [
        (["suite", "check", "/nowhere.yaml"], 2, "/nowhere.yaml"),
        (["suite", "grade", "/nowhere.yaml"], 2, "/nowhere.yaml"),
        (["bass"], 2, "did you mean 'base'"),
        (["runs", "--nonsense"], 2, "--nonsense"),
        (["base", "--max-hours", "1"], 2, "--max-hours 1 limits what --yes agrees to"),
    ],
)
def test_every_error_is_one_json_document(tunesmith: Tunesmith, argv: list[str], exit_code: int, told: str) -> None:
    done = tunesmith(*argv, "--json")
    assert done.returncode == exit_code, done.stderr
    [line] = done.stdout.splitlines()
    error = json.loads(line)
    assert (error["event"], error["exit_code"]) == ("error", exit_code) and told in error["message"]


@pytest.mark.parametrize(
    "argv", [["run", "--resume", "r7"], ["run", "/nowhere.yaml"], ["run"], ["demo", "--nonsense"], ["-p", "x", "stray"]]
)
def test_a_stream_ends_with_done_whatever_was_wrong(tunesmith: Tunesmith, argv: list[str]) -> None:
    done = tunesmith(*argv, "--json")
    assert done.returncode == 2, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["error", "done"] and events[1]["exit_code"] == 2


def test_a_defect_of_ours_is_json_too(tunesmith: Tunesmith) -> None:
    one_run(tunesmith)
    with Store(tunesmith.home).write() as conn:
        conn.execute("UPDATE runs SET plan = '5'")
        conn.execute("UPDATE steps SET plan = '5'")
    shown = tunesmith("runs", "show", "r1", "--json")
    assert shown.returncode == 1 and "unexpected" in json.loads(shown.stdout)["message"]
    resumed = tunesmith("run", "--resume", "r1", "--json")
    assert [json.loads(line)["event"] for line in resumed.stdout.splitlines()] == ["error", "done"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_closed_stdin_is_nobody_to_ask(tunesmith: Tunesmith, model_folder: Path, options: list[str]) -> None:
    typed = shlex.join([*COMMAND, "base", "--model", str(model_folder), *options])
    done = subprocess.run(["sh", "-c", f"{typed} <&-"], env=tunesmith.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "no terminal" in done.stderr, done.stderr


def test_what_is_nested_without_end_is_bad_input(tunesmith: Tunesmith, tmp_path: Path, model_folder: Path) -> None:
    deep = tmp_path / "deep.yaml"
    deep.write_text(DEEP)
    (model_folder / "generation_config.json").write_text(DEEP)
    for argv in (
        ["run", str(deep)],
        ["base", "--request", str(deep)],
        ["baseline", "--suites", DEEP],
        ["base", "--model", str(model_folder)],
        ["suite", "check", str(deep)],
    ):
        done = tunesmith(*argv)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, (argv[:2], done.stderr[-500:])


def test_a_report_that_cannot_be_written_is_bad_input(tunesmith: Tunesmith, tmp_path: Path) -> None:
    one_run(tunesmith)
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "report.html"):
        done = tunesmith("report", "r1", "-o", str(place))
        named = place if place.is_dir() else place.parent
        assert done.returncode == 2 and str(named) in done.stderr, done.stderr


def test_a_look_at_the_machine_needs_no_yes_and_is_a_step_of_a_written_plan_alone(tunesmith: Tunesmith) -> None:
    shown = tunesmith.json("inspect")
    assert shown["status"] == "done" and shown["result"]["cores"] >= 1 and shown["approval"] is None
    assert {fit["parameters"] for fit in shown["result"]["fits"]} >= {135_000_000, 7_000_000_000}
    assert shown["run"] is None and tunesmith.json("runs", "list")["runs"] == []
    assert Store(tunesmith.home).read("SELECT event FROM events")[0]["event"] == "machine.inspected"
    one_run(tunesmith)
    assert [step["stage"] for step in tunesmith.json("runs", "show", "r1")["steps"]] == ["inspect"]


def test_without_a_terminal_and_a_yes_nothing_expensive_starts(tunesmith: Tunesmith, model_folder: Path) -> None:
    done = tunesmith("base", "--model", str(model_folder), "--json")
    assert done.returncode == 3
    asked = json.loads(done.stdout)
    assert asked["event"] == "approval.required" and asked["stage"] == "base"
    assert len(asked["plan_hash"]) == 64 and asked["estimated_seconds"] > 0
    step = Store(tunesmith.home).step(asked["step"])
    assert step.status == "planned" and step.pid is None and step.approval is None


def test_more_hours_than_allowed_are_not_started(tunesmith: Tunesmith, model_folder: Path) -> None:
    done = tunesmith("base", "--model", str(model_folder), "--yes", "--max-hours", "0.0001")
    assert done.returncode == 3 and "over --max-hours 0.0001" in done.stderr
    assert Store(tunesmith.home).priced_steps()[0].status == "planned"


def test_a_yes_to_another_plan_starts_nothing_and_the_new_plan_waits(tunesmith: Tunesmith, model_folder: Path) -> None:
    asked = json.loads(tunesmith("base", "--model", str(model_folder), "--json").stdout)
    (model_folder / "extra.json").write_text("[" + "1," * 900_000 + "1]")
    done = tunesmith("base", "--approve", asked["plan_hash"][:12], "--json")
    assert done.returncode == 3 and "would now be planned" in done.stderr
    store = Store(tunesmith.home)
    assert [step.status for step in store.priced_steps()] == ["declined", "planned"] and store.run(
        "r1"
    ).status == "waiting"
    proposed = json.loads(done.stdout)
    assert proposed["event"] == "approval.required" and proposed["plan"]["stage"] == "base"
    assert (proposed["step"], proposed["plan_hash"]) == (store.priced_steps()[1].id, store.priced_steps()[1].plan_hash)
    assert tunesmith("base", "--approve", proposed["plan_hash"][:12]).returncode == 0
    assert store.run("r1").status == "done"


def test_a_plan_tells_its_events_one_a_line_and_ends_with_done(tunesmith: Tunesmith, model_folder: Path) -> None:
    plan = model_folder.parent / "plan.yaml"
    plan.write_text(f"name: two\nsteps:\n  - inspect\n  - stage: base\n    model: {model_folder}\n")
    done = tunesmith("run", str(plan), "--json")
    assert done.returncode == 3
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "run.started" and names[-3:] == ["approval.required", "error", "done"]
    assert names.index("step.started") < names.index("step.finished")
    priced = events[1]
    assert priced["event"] == "plan.priced" and priced["estimated_seconds"] > 0
    assert [step["stage"] for step in priced["steps"]] == ["inspect", "base"]
    last = events[-1]
    assert last["exit_code"] == 3 and last["run"] == "r1" and last["status"] == "waiting"
    again = tunesmith("run", "--resume", "r1", "--json")
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert again.returncode == 3
    assert [e["stage"] for e in told if e["event"] == "plan.shown"] == ["base"], "what is done is not done again"


def test_a_plan_is_not_resumed_as_another_plan(tunesmith: Tunesmith, tmp_path: Path) -> None:
    first, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("name: a\nsteps: [inspect]\n")
    other.write_text("name: b\nsteps: [inspect, base]\n")
    assert tunesmith("run", str(first)).returncode == 0
    done = tunesmith("run", str(other), "--resume", "r1")
    assert done.returncode == 2 and "not the plan of r1" in done.stderr


def test_a_finished_plan_ends_with_zero_and_a_report(tunesmith: Tunesmith, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nsteps: [inspect]\n")
    done = tunesmith("run", str(tmp_path / "a.yaml"), "--json")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["event"], last["status"], last["exit_code"]) == (0, "done", "done", 0)
    assert Path(last["report"]).is_file()


def test_a_defect_of_ours_is_one_line_and_its_traceback_a_file(tunesmith: Tunesmith) -> None:
    one_run(tunesmith)
    with Store(tunesmith.home).write() as conn:
        conn.execute("UPDATE steps SET plan = '5'")
    done = tunesmith("runs", "show", "r1")
    assert done.returncode == 1 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    log = Path(done.stderr.strip().rsplit("traceback is in ", 1)[1])
    assert log.is_relative_to(tunesmith.home) and "Traceback" in log.read_text()


def test_a_log_that_cannot_be_written_is_said_and_hides_no_error(tunesmith: Tunesmith, tmp_path: Path) -> None:
    one_run(tunesmith)
    with Store(tunesmith.home).write() as conn:
        conn.execute("UPDATE steps SET plan = '5'")
    (tunesmith.home / "logs").mkdir(exist_ok=True)
    (tunesmith.home / "logs" / "errors.log").symlink_to("/dev/full")  # every write to it finds no space left
    (tmp_path / f"tunesmith-{os.geteuid()}").write_text("")
    done = tunesmith("runs", "show", "r1", TMPDIR=str(tmp_path))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("tunesmith: unexpected") and "no log could be written" in done.stderr


def test_a_full_disk_is_one_line_with_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    conn = sqlite3.connect(":memory:")
    conn.execute("PRAGMA max_page_count = 2")
    conn.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError) as full:
        conn.execute("INSERT INTO t VALUES (zeroblob(100000))")
    for error in (full.value, OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "quota")):
        line = unexpected(error)
        assert line.startswith(f"the disk of {tmp_path / 'home'} is full (") and " free); make room" in line
        assert "TUNESMITH_HOME" in line and "unexpected" not in line and "traceback" not in line


def test_a_dead_step_that_cannot_be_marked_keeps_nobody_from_reading(
    tunesmith: Tunesmith, terminal: Callable[..., Terminal]
) -> None:
    one_run(tunesmith)
    with Store(tunesmith.home).write() as conn:
        conn.execute("UPDATE steps SET status = 'running', pid = 1, pid_started = 1, boot_id = 'gone'")
        conn.execute("CREATE TRIGGER full BEFORE UPDATE ON steps BEGIN SELECT RAISE(FAIL, 'no room'); END")
    for argv in (("runs", "list"), ("runs", "show", "r1"), ("doctor",)):
        done = tunesmith(*argv)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
        assert "could not be written down" in done.stderr and "no room" in done.stderr
    repl = terminal()
    repl.expect("could not be written down")
    repl.line("/runs list")
    repl.expect("inspect")


def test_a_home_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = Tunesmith(tmp_path / "file")("runs")
    assert done.returncode == 2 and "TUNESMITH_HOME" in done.stderr and len(done.stderr.splitlines()) == 1


NAMED = 'address = "127.0.0.1:1"\nstorage = "s"\n'


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("", "no [ray] in settings.toml"),
        (NAMED, "has no token_file"),
        (f'{NAMED}token_file = "gone"', "gone: No such file"),
    ],
)
def test_the_doctor_says_where_ray_stands(tunesmith: Tunesmith, settings: str, told: str) -> None:
    tunesmith.home.mkdir(exist_ok=True)
    (tunesmith.home / "settings.toml").write_text(f"[ray]\n{settings}\n" if settings else "")
    found = json.loads(tunesmith("doctor", "--json", TUNESMITH_VLLM="/nowhere/vllm").stdout)
    assert (told if found["ray"]["version"] or not settings else "not installed") in found["ray"]["state"]


def test_the_doctor_names_the_machine_and_what_is_missing(tunesmith: Tunesmith) -> None:
    found = json.loads(tunesmith("doctor", "--json", TUNESMITH_VLLM="/nowhere/vllm").stdout)
    assert found["machine"]["cores"] >= 1 and found["vllm"]["program"] is None
    assert any("/nowhere/vllm" in line for line in found["missing"])


def test_a_reader_that_leaves_early_is_no_error(tunesmith: Tunesmith) -> None:
    with subprocess.Popen(
        [*COMMAND, "suite", "--help"], env=tunesmith.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
