"""No word is broken at any width, tables give columns up before that, and a pipe gets whole lines without a frame."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Group, RenderableType

from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.commands import render, theme
from tunesmith.agent.commands.comparison_view import comparison_view
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.agent.repl.slash import help_page
from tunesmith.memory.questions import show_run
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.forecast import Forecast

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def printed(what: RenderableType, width: int | None) -> str:
    """On a terminal of that width; None: into a pipe."""
    file = io.StringIO()
    SafeConsole(file=file, width=width, force_terminal=width is not None, color_system=width and "standard").print(what)
    return file.getvalue()


def on_terminal(what: RenderableType, width: int) -> list[str]:
    return _STYLE.sub("", printed(what, width)).splitlines()


def broken_words(what: RenderableType, width: int) -> set[str]:
    """Words of a terminal of that width that the same in a pipe, where nothing is wrapped, does not have."""
    whole = {word.strip("·") for word in printed(what, None).split()}
    shown = {word for line in on_terminal(what, width) for word in line.split() if not set(word) <= set("─·")}
    return {word for word in shown - whole if word.removesuffix(":") not in whole}


@table("seed", range(20))
def test_text_is_wrapped_between_words_and_nothing_of_it_is_lost(seed: int) -> None:
    draw = random.Random(seed)
    path = "/home/user/a/very/long/path/" + "x" * 30
    words = ["a", "word", "rückwärts", "退款", "“go on”", "`tunesmith runs show r1`", path]
    text = " ".join(draw.choice(words) for _ in range(60))
    width = draw.randint(30, 130)
    lines = on_terminal(prose(text), width)
    assert " ".join(line.strip() for line in lines) == text
    assert all(cell_len(line) <= width or " " not in line.strip() for line in lines)
    for unit in ("“go on”", "`tunesmith runs show r1`"):
        assert sum(line.count(unit) for line in lines) == text.count(unit), "what is to be typed stays on one line"


def test_what_goes_on_hangs_below_its_line_and_code_is_left_alone() -> None:
    first, *rest = on_terminal(prose("  - " + "some words " * 20), 60)
    assert first.startswith("  - some") and rest and all(re.match(" {4}[sw]", line) for line in rest)
    code = "    curl http://127.0.0.1:8411/v1/chat/completions -H 'Content-Type: application/json' -d '{}'"
    assert on_terminal(prose(code), 60) == [code]


def views(store: Store, run: str) -> dict[str, RenderableType]:
    estimate = Estimate(seconds=7321, basis="arithmetic", peak_ram_bytes=3 << 30, disk_bytes=1 << 30)
    steps = [Forecast(entry.name, entry.summary, estimate) for entry in catalog.STAGES]
    compared = compare_with_hops(store, run, "base", "quantized")
    fields = catalog.BY_NAME["train"].load().request
    return {
        "runs list": render.runs_table(store, lambda at: "2026-11-18 11:06"),
        "runs show": render.run_table(show_run(store, run)),
        "compare": Group(*comparison_view(store, compared, whole=False, in_repl=False)),
        "compare --all": Group(*comparison_view(store, compared, whole=True, in_repl=True)),
        "forecast": forecast_table("demo", steps),
        "help": help_page(),
        "help train": render.fields_table("train", "train an adapter", fields),
    }


def test_a_pipe_gets_every_line_whole_without_frame_or_blanks_at_its_end(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path)
    for name, what in views(store, run).items():
        assert not re.search("[\u2500-\u257f]|[ \t]$|\x1b", printed(what, None), re.MULTILINE), name
    assert printed(prose("word " * 500), None).count("\n") == 1


@pytest.mark.heavy
@table("width", [80, 100, 120])
def test_no_table_breaks_a_word(tmp_path: Path, width: int) -> None:
    store, run = finished_run(tmp_path)
    cut = {name: broken for name, what in views(store, run).items() if (broken := broken_words(what, width))}
    assert not cut


@pytest.mark.heavy
def test_a_narrow_table_gives_up_what_matters_least_and_keeps_the_rest(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path)
    wide, narrow = ("\n".join(on_terminal(views(store, run)["runs show"], width)) for width in (120, 66))
    assert "RSS" in wide and "approval" in wide
    assert "approval" not in narrow and all(word in narrow for word in ("step", "stage", "status", "preflight"))


@table(
    ("word", "style"),
    [("learned", theme.GOOD), ("not learned", theme.BAD), ("no decision", theme.UNSURE), ("form only", theme.UNSURE),
     ("failed", theme.BAD), ("not worse", theme.GOOD), ("worse", theme.BAD), ("whatever", "")],
)  # fmt: skip
def test_a_verdict_has_one_colour(word: str, style: str) -> None:
    assert theme.verdict_style(word) == style


def test_colours_change_no_character_and_are_left_out_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "r1 was not learned: say “go on”, or `/report r1`; /explain tells why"
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert theme.coloured(text).plain == text
    assert "\x1b[31m" in printed(prose(text), 80) and "\x1b[36m" in printed(prose(text), 80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7])m", printed(prose(text), 80))
    assert "\x1b" not in printed(prose(text), None)
