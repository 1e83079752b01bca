"""The first hour of a card: the worthiest questions first, bounded, gone on with where it was, and all of it told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fixtures.planted_gpus import gpu, plant
from tests.fixtures.tables import table
from tests.fixtures.waiting import wait_for
from tests.gpu import first_card
from tests.gpu.first_card import PAGE, Hour, alone_in, facts_of, hour_here, main
from tests.gpu.runner import NO_VLLM, ONE_CARD, OUT_OF_TIME, Ended, check_in
from tests.gpu.table import GROUPS, MODELS, TASKS, Check, Group, Task, skipped
from tunesmith.tools.machine.processes import python_module
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.gpu_check.findings import compared, failed

ROOT = Path(__file__).parents[4]
FACTS = {"card": "Card 0, 24.0 GiB", "driver": "570.1", "vLLM": "none"}
A, B, C = (Task(f"task {n}", f"tests.gpu.m:{n}", (f"{n} peak", f"{n} step"), 10) for n in "abc")
TWO = (Group("Does it train?", "the memory", (A, B)), Group("Does it serve?", "the server", (C,)))
Carried = list[str]


def good(task: Task) -> Ended:
    return Ended([compared(name, expected=100, measured=104, within=(0.9, 1.1), unit="seconds") for name in task.gives])


def far_off(task: Task) -> Ended:
    return Ended([compared(name, expected=100, measured=131, within=(0.9, 1.1), unit="seconds") for name in task.gives])


def killed(task: Task) -> Ended:
    why = "not done after 30 s"
    return Ended([*good(task).found[:1], failed(task.gives[1], why)], why, killed=True)


def cut_off(task: Task) -> Ended:
    return Ended([*good(task).found[:1], skipped(task.gives[1], OUT_OF_TIME)], OUT_OF_TIME, killed=True)


def left_out(task: Task, why: str = NO_VLLM) -> Ended:
    return Ended([skipped(name, why) for name in task.gives], why, unbegun=True)


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return check_in(tmp_path, device="cpu")


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Carried]:
    """What is carried out in an hour, by name; tasks named here end in another way than a good one."""

    def carry_out(hour: Hour, again: Sequence[str] = (), **ends: Callable[[Task], Ended]) -> Carried:
        begun: Carried = []

        def end(check: Check, task: Task, deadline: float) -> Ended:
            begun.append(task.doing[-1])
            return ends.get(task.doing[-1], good)(task)

        monkeypatch.setattr(first_card, "carried_out", end)
        hour.carry_out(deadline=0, say=lambda line: None, again=again)
        return begun

    return carry_out


def test_the_worthiest_questions_come_first() -> None:
    works = [task.work.removeprefix("tests.gpu.") for task in TASKS]
    in_order = ["cards:card", "cards:rates", "trainings:chosen", "servings:base", "exports:quantize",
                "servings:fp8", "trainings:shared"]  # fmt: skip
    assert [work for work in works if work in in_order] == in_order
    assert all(work.startswith(("cards", "trainings")) for work in works[: works.index("servings:base")])
    assert works.index("exports:quantize_on_processor") < works.index("exports:quantize"), "which is compared with it"
    page = (ROOT / "docs" / "gpu-check.md").read_text()
    assert re.findall(r"^\d\. (.+)$", page, re.MULTILINE) == [group.question for group in GROUPS]


def test_what_has_ended_is_not_carried_out_again(check: Check, carried: Callable[..., Carried]) -> None:
    hour = Hour(check.home.parent, check, FACTS, TWO)
    assert carried(hour, b=far_off, c=killed) == ["a", "b", "c"] and hour.left() == []
    assert carried(hour) == []


@table(("end", "told"), [(cut_off, "unfinished"), (left_out, "left out")])
def test_what_has_not_ended_is_carried_out_again(
    check: Check, carried: Callable[..., Carried], end: Callable[[Task], Ended], told: str
) -> None:
    hour = Hour(check.home.parent, check, FACTS, TWO)
    for task in hour.tasks:
        hour.place(task).unlink(missing_ok=True)
    assert carried(hour, b=end) == ["a", "b", "c"]
    kept = hour.kept(B)
    assert kept and kept.state == told and hour.left() == [B]
    assert carried(hour) == ["b"] and hour.left() == []


@table(
    ("again", "begun"),
    [("all", "abc"), ("killed", "c"), ("failed", "bc"), ("B PEAK", "b"), ("m:a", "a"), ("nothing like it", "")],
)
def test_what_is_asked_for_is_carried_out_again(
    check: Check, carried: Callable[..., Carried], again: str, begun: str
) -> None:
    hour = Hour(check.home.parent, check, FACTS, TWO)
    carried(hour, again=["all"], b=far_off, c=killed)
    assert carried(hour, again=[again]) == list(begun)


def test_another_card_driver_or_size_is_measured_anew_and_another_vllm_where_it_serves(
    check: Check, carried: Callable[..., Carried]
) -> None:
    serves = C._replace(needs_vllm=True)
    groups = (TWO[0], TWO[1]._replace(tasks=(serves,)))
    for facts, begun in (
        (FACTS, "abc"), ({**FACTS, "card": "Card 1"}, "abc"), ({**FACTS, "driver": "571"}, "abc"),
        ({**FACTS, "vLLM": "vllm 0.33"}, "c"), (FACTS, ""),
    ):  # fmt: skip
        assert carried(Hour(check.home.parent, check, facts, groups)) == list(begun), facts
    fewer = check.model_copy(update={"sizes": check.sizes.model_copy(update={"rows": 2})})
    assert carried(Hour(check.home.parent, fewer, FACTS, groups)) == ["a", "b", "c"]


def test_a_task_that_the_script_dies_in_is_unfinished_and_its_models_stay(
    check: Check, carried: Callable[..., Carried]
) -> None:
    def dies(task: Task) -> Ended:
        raise KeyboardInterrupt

    hour = Hour(check.home.parent, check, FACTS, TWO)
    (check.dir / MODELS).mkdir()
    with pytest.raises(KeyboardInterrupt):
        carried(hour, b=dies)
    assert hour.left() == [B, C] and "| b peak |  |  |  | unfinished |  |" in hour.page.read_text()
    assert (check.dir / MODELS).exists()
    assert carried(hour) == ["b", "c"] and not (check.dir / MODELS).exists()


def test_a_second_card_is_not_waited_for(check: Check, carried: Callable[..., Carried]) -> None:
    hour = Hour(check.home.parent, check, FACTS, TWO)
    carried(hour, c=lambda task: left_out(task, ONE_CARD))
    assert hour.left() == [] and hour.next().startswith("Send back this file.")
    assert f"| c peak | – | – |  | left out | {ONE_CARD} |" in hour.page.read_text()


def test_the_file_names_the_card_and_each_figure_beside_the_predicted_one(
    check: Check, carried: Callable[..., Carried]
) -> None:
    hour = Hour(check.home.parent, check, {**FACTS, "card": "Card|0"}, TWO)
    carried(hour, b=far_off, c=killed)
    lines = hour.told(0.0).splitlines()
    for line in (
        "| card | Card\\|0 |", "| driver | 570.1 |", "| written | 1970-01-01 00:00 UTC |",
        "| items | 3 as predicted, 3 not as predicted, 0 left out, 0 to do |",
        "| a peak | 100 seconds | 104 seconds | 1.04 | as predicted |  |",
        "| b step | 100 seconds | 131 seconds | 1.31 | **not as predicted** | measured ÷ expected is 1.31, and 0.9 to "
        "1.1 was predicted |",
        "| c step | – | – |  | **killed** | not done after 30 s |",
    ):  # fmt: skip
        assert line in lines
    assert [line for line in lines if line.startswith("## ")] == ["## 1. Does it train?", "## 2. Does it serve?"]
    assert lines[-1] == hour.next()


@table(
    ("ends", "says"),
    [
        ({}, "Send back this file. Every figure is as predicted: README.md may say so of Card 0, 24.0 GiB."),
        ({"b": far_off, "c": killed}, "Send back this file and `{log}`. Change the memory: `b peak` is 1.31 times the "
         "predicted; 2 more items below or beside it may follow from it."),
        ({"c": killed}, "Send back this file and `{log}`. `c step` was killed, and `make first-card AGAIN=killed` "
         "tries it once more."),
        ({"a": lambda task: Ended([failed(name, "CUDA error") for name in task.gives], "CUDA error")}, "Send back this "
         "file and `{log}`. Look first at `a peak`: CUDA error; 1 more item below or beside it may follow from it."),
        ({"b": left_out, "c": left_out}, f"Run `make first-card` again, 2 tasks of 3 are left ({NO_VLLM}). Send back "
         "this file."),
    ],
)  # fmt: skip
def test_the_last_line_says_what_to_do(
    check: Check, carried: Callable[..., Carried], ends: dict[str, Callable[[Task], Ended]], says: str
) -> None:
    hour = Hour(check.home.parent, check, FACTS, TWO)
    carried(hour, again=["all"], **ends)
    assert hour.page.read_text().splitlines()[-1] == says.format(log=check.dir / "log.txt")


def test_without_a_card_one_sentence_says_so_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch)
    assert main(["--dir", str(tmp_path / "hour")]) == 2
    [told] = capsys.readouterr().err.splitlines()
    assert "there is no NVIDIA GPU here" in told and not (tmp_path / "hour").exists()
    plant(monkeypatch, gpu(0))
    monkeypatch.setattr(first_card, "trains_on_cpu", lambda: True)
    assert main(["--dir", str(tmp_path / "hour")]) == 2
    assert "torch is installed for the CPU, and Card 0 is here" in capsys.readouterr().err


@table(("end", "code"), [(good, 0), (far_off, 1), (killed, 1), (left_out, 1), (cut_off, 1)])
def test_its_exit_code_says_whether_all_is_as_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Task], Ended], code: int
) -> None:
    plant(monkeypatch, gpu(0))
    monkeypatch.setattr(first_card, "trains_on_cpu", lambda: False)
    monkeypatch.setattr(first_card, "carried_out", lambda check, task, deadline: end(task))
    folder = tmp_path / end.__name__
    made = main(["--dir", str(folder)], lambda folder, gpus: Hour(folder, check_in(folder), facts_of(gpus, None), TWO))
    assert made == code and "| card | Card 0, 24.0 GiB |" in (folder / PAGE).read_text()


def test_on_two_cards_tasks_see_one_of_them_and_those_of_two_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = (gpu(0), gpu(1, free=22))
    plant(monkeypatch, *gpus)
    monkeypatch.setattr(launcher, "trains_on_cpu", lambda: False)
    monkeypatch.setattr(first_card, "os", SimpleNamespace(environ=(environ := {})))
    hour = hour_here(tmp_path, gpus)
    assert environ["CUDA_VISIBLE_DEVICES"] == "GPU-1f00" and hour.facts["card"] == "Card 1, 24.0 GiB"
    assert hour.check.several.split(",") == ["GPU-1f00", "GPU-0f00"] and hour.check.on_card
    assert hour_here(tmp_path, gpus[:1]).check.several == "", "one card"
    assert hour_here(tmp_path, gpus).check.step == hour.check.step, "which owns the servers of a call before"


def test_two_do_not_work_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, gpu(0))
    monkeypatch.setattr(first_card, "trains_on_cpu", lambda: False)
    with alone_in(tmp_path) as alone:
        assert alone and main(["--dir", str(tmp_path)], lambda folder, gpus: pytest.fail("it began")) == 2
    assert "another process is at work" in capsys.readouterr().err
    with alone_in(tmp_path) as alone:
        assert alone


def test_what_a_task_may_take_ends_with_the_hour(check: Check) -> None:
    hour = Hour(check.home.parent, check, FACTS, TWO)
    hour.carry_out(deadline=time.monotonic(), say=lambda line: None)
    assert [kept.why for task in hour.tasks if (kept := hour.kept(task))] == [OUT_OF_TIME] * 3
    assert "3 tasks of 3 are left (out of time)" in hour.next()


def script(which: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = python_module("tests.fixtures.first_card_here", which, "--dir", str(folder), *more)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env=env,
    )  # fmt: skip


def ended(child: subprocess.Popen[str], code: int) -> str:
    told, _ = child.communicate(timeout=1500)
    assert child.returncode == code, told
    return told


def rows(folder: Path) -> dict[str, list[str]]:
    """Cells of each item of the file."""
    lines = [line for line in (folder / PAGE).read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {name: rest for name, *rest in cells}


@pytest.mark.heavy
def test_killed_half_way_the_script_goes_on_and_ends_with_the_whole_file(tmp_path: Path) -> None:
    child = script("planted", tmp_path)
    found = tmp_path / "step" / "findings.jsonl"
    wait_for(lambda: found.is_file() and '"before"' in found.read_text(), told="the second task never began")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert rows(tmp_path)["quick"][:4] == ["2.0 GiB", "2.1 GiB", "1.05", "as predicted"]
    assert rows(tmp_path)["after"] == ["", "", "", "unfinished", ""]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir() if "quick" in path.name}
    (tmp_path / "go").touch()
    told = ended(script("planted", tmp_path), 1)
    assert "2 of 2: wait" in told and "1 of 2" not in told
    assert {name: (tmp_path / "kept" / name).read_bytes() for name in kept} == kept != {}
    assert rows(tmp_path)["after"][:4] == ["4 seconds", "12 seconds", "3.00", "**not as predicted**"]
    last = (tmp_path / PAGE).read_text().splitlines()[-1]
    assert "Change the price of waiting: `after` is 3.00 times the predicted" in last and last in told


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_script_with_every_task_on_the_processor(tmp_path: Path) -> None:
    """Killed in its first training. What is served is answered by a stand-in for vLLM."""
    child = script("all", tmp_path)
    wait_for(lambda: (tmp_path / "step" / MODELS / "dense").exists(), told="no training began")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert rows(tmp_path)["training peak, bf16"][3] == "unfinished"
    told = ended(script("all", tmp_path), 1)
    assert "measure matrix products" not in told and "trainings:plain" in told
    cells = rows(tmp_path)
    assert {cells[name][3] for task in TASKS for name in task.gives} == {*first_card.TOLD.values()}
    for name in ("merge proof", "NF4 bytes, dense", "no false fit at 4 bits"):
        assert cells[name][3] == "as predicted"
    measured = ("training peak, mixture, NF4", "training step, 2 cards", "answers", "answers, W8A8", "split answers")
    assert all(cells[name][1] not in ("", "–") for name in measured)
    assert (tmp_path / PAGE).read_text().splitlines()[-1].startswith("Send back this file and")
    assert not (tmp_path / "step" / MODELS).exists()
