"""The report: true to the store, whole in one file, honest about what is missing, deaf to what data tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.memory.errors import NotFound
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import EvalResult
from tunesmith.tools.core import format
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.report.charts import loss_chart
from tunesmith.tools.report.evaluation import evaluation
from tunesmith.tools.report.page import Page as Facts
from tunesmith.tools.report.page import gather, write_report
from tunesmith.tools.report.process import Curve
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Assertion

ATTACK = (
    "</pre></details></td></title></style></textarea>--><script>document.title='owned'</script>"
    '<img src="http://evil.example/x" onerror="alert(1)">" onmouseover="alert(2)" {{ 7*7 }}{% raw %}'
    "<svg/onload=alert(3)><iframe srcdoc='x'><base href=//evil.example><meta http-equiv=refresh content=0>"
)
VOID = {"meta", "link", "img", "br", "hr", "input", "base"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its text, and whether its tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html, self.elements, self.texts, self.open = html, [], [], []  # type: ignore[var-annotated]
        self.misnested: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misnested.append(f"{tag} at line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def written(store: Any, run: str, tmp_path: Path) -> tuple[Facts, Page]:
    path = tmp_path / "written.html"
    assert write_report(store, run, str(path), force=True).path == path and path.stat().st_mode & 0o777 == 0o600
    return gather(store, run), Page(path.read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facts, Page]:
    home = tmp_path_factory.mktemp("finished")
    return written(*stored_runs.finished_run(home), home)


@pytest.mark.heavy
def test_the_verdict_gives_the_rates_along_the_chain_with_n_and_p(finished: tuple[Facts, Page]) -> None:
    facts, page = finished
    said = facts.verdict
    assert said.startswith("“ticket-triage” was learned: of 60 target cases the base passes 2 (3 %)")
    assert "the adapter 59 (98 %, p < 0.001) and the quantized model 57 (95 %, p < 0.001)" in said
    assert "general block" in said and "32 → 31 → 31 of 33" in said
    assert " ".join(facts.verdict.split()) in page.text


@pytest.mark.heavy
def test_the_report_counts_what_the_store_holds(finished: tuple[Facts, Page]) -> None:
    facts, _ = finished
    scores = facts.evaluation.scores
    assert {arm: score.passed for (block, arm), score in scores.items() if block == "target"} == {
        "base": 2, "adapter": 59, "merged": 59, "quantized": 57,
    }  # fmt: skip
    base = scores["target", "base"]
    assert base.low is not None and base.high is not None and base.low < 2 / 60 < base.high < 0.15
    hops = {(hop.a, hop.b): hop for hop in facts.evaluation.hops}
    assert list(hops) == [("base", "adapter"), ("adapter", "merged"), ("adapter", "quantized")]
    assert (hops["base", "adapter"].gained_count, hops["base", "adapter"].lost_count) == (57, 1)
    assert [flip.case_id for flip in hops["adapter", "quantized"].lost] == ["target-030", "target-044"]
    assert all(hop.comparison and hop.comparison.comparable for hop in hops.values())
    assert facts.rows is not None and (facts.rows.total, facts.rows.usable, facts.rows.dropped) == (160, 138, 22)
    assert {reason.kind: reason.rows for reason in facts.rows.reasons} == {"near-duplicate": 20, "leak": 2}


@pytest.mark.heavy
def test_the_page_shows_every_part(finished: tuple[Facts, Page]) -> None:
    facts, page = finished
    for heading in ("Pass rates", "Case by case", "Comparability", "Known limits", "Training", "Training rows",
                    "Time and memory", "Approvals", "Lineage"):  # fmt: skip
        assert heading in page.text
    assert all(limit in page.text for limit in facts.limits)
    assert page.count("polyline") == 2
    assert "dataset a4 → adapter a6 → merged a8 → quantized a10 → deployment a12" in page.text
    assert "W4A16 (compressed-tensors)" in page.text
    assert "My parcel 48000 was due on Monday" in page.text  # what the flipped case asked


def test_what_the_audits_of_saved_bytes_said_is_shown(finished: tuple[Facts, Page]) -> None:
    facts, page = finished
    assert [(audit.model, audit.faults) for _, audit in facts.audits] == [("merged", ()), ("quantized", ())]
    assert "210 carry the adapter's update, rows of 24 computed again (rounding is 3.1% of the update)" in page.text
    assert [(one.arm, one.passed) for one in facts.evaluation.retained] == [("merged", 57), ("quantized", 55)]
    assert "Gain retained: quantized keeps 55 of the 57 target cases that the adapter won over the base" in page.text
    assert "Saved bytes of the quantized model" in page.text and "210 layers quantized" in page.text


def test_a_tool_block_that_the_base_cannot_do_is_said_to_prove_nothing(finished: tuple[Facts, Page]) -> None:
    facts, page = finished
    assert any("cannot call tools (0 of 12 passed)" in limit for limit in facts.limits)
    assert page.text.count("proves nothing either way") == 2


@pytest.mark.heavy
def test_the_page_needs_nothing_from_anywhere(finished: tuple[Facts, Page]) -> None:
    _, page = finished
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "embed", "form", "a"}
    assert not re.search(r"url\(|@import|@font-face", page.html)
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "script-src" not in policy
    assert len(page.html) < 250_000


def test_the_page_is_accessible(finished: tuple[Facts, Page]) -> None:
    _, page = finished
    assert page.misnested == [] and page.open == []
    assert ("html", {"lang": "en"}) in page.elements and page.count("h1") == 1
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) > 30
    assert len(re.findall(r'<svg[^>]*role="img"[^>]*><title', page.html)) == len(pictures)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_text_colour_has_contrast_in_light_and_dark(finished: tuple[Facts, Page]) -> None:
    themes = re.findall(r":root\{([^}]*)\}", finished[1].html)
    assert len(themes) == 3  # light, dark, print
    for theme in themes:
        colours = dict(re.findall(r"--(\w+):(#\w+)", theme))
        colours = {n: c if len(c) == 7 else "#" + "".join(2 * d for d in c[1:]) for n, c in colours.items()}
        for name in ("ink", "quiet", "good", "bad", "warn"):
            for ground in ("page", "soft"):
                light, dark = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground, theme)


@pytest.mark.heavy
def test_hostile_text_anywhere_changes_no_element_of_the_page(tmp_path: Path) -> None:
    """The planted markup is in names, goals, outputs, tool calls, reasons, cases, rows, prices, keys and errors."""
    _, clean = written(*stored_runs.finished_run(tmp_path / "clean", "PLANTED"), tmp_path)
    _, page = written(*stored_runs.finished_run(tmp_path / "hostile", ATTACK), tmp_path)
    assert page.html.count("document.title") > 100
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    assert [sorted(attributes) for _, attributes in page.elements] == [sorted(a) for _, a in clean.elements]
    assert page.misnested == []
    assert "{{ 7*7 }}" in page.text and "<script>document.title='owned'</script>" in page.text


def test_text_that_hides_or_reorders_is_spelled_out(finished: tuple[Facts, Page]) -> None:
    _, page = finished
    assert "right ⟨U+202E⟩to left⟨U+202C⟩, a ⟨U+0007⟩ bell, a zero⟨U+200B⟩width space and a tag ⟨U+E0041⟩" in page.text
    assert not re.search("[\x00-\x08\u202a-\u202e\u200b\U000e0000-\U000e007f]", page.html)
    assert "Ünïcødé – 退款 – שלום – 💶" in format.visible(stored_runs.ODD_OUTPUTS[0])


def test_long_outputs_are_cut_with_a_count(finished: tuple[Facts, Page]) -> None:
    assert "(3,500 more characters)" in finished[1].text


def test_a_run_with_only_a_baseline_says_what_is_missing(tmp_path: Path) -> None:
    facts, page = written(*stored_runs.baseline_run(tmp_path), tmp_path)
    assert "has not been taught yet; the untouched base passes 2 of 60 target cases" in facts.verdict
    assert facts.verdict.endswith("nothing was deployed.")
    assert "Case by case" not in page.text
    assert "not tonight" not in page.text, "a price that was declined is no part of what the run did"
    assert not facts.evaluation.hops and facts.served is None


def test_a_failed_training_is_named_with_its_reason(tmp_path: Path) -> None:
    facts, page = written(*stored_runs.failed_run(tmp_path), tmp_path)
    assert "was not taught; train (s5) failed: needs 27.4 GiB, 23.6 GiB free" in facts.verdict
    assert facts.limits[0].startswith("train (s5) failed: needs 27.4 GiB")
    assert page.count("polyline") == 2  # the losses that there were


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    facts, page = written(*stored_runs.empty_run(tmp_path), tmp_path)
    assert "has not begun" in facts.verdict and not facts.evaluation.blocks and facts.limits == []
    assert page.misnested == [] and "Nothing was deployed" not in page.text


def test_an_unknown_run_is_named(tmp_path: Path) -> None:
    store, _ = stored_runs.empty_run(tmp_path)
    with pytest.raises(NotFound, match="r99"):
        write_report(store, "r99", str(tmp_path / "report.html"))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.heavy
def test_only_a_server_that_runs_is_said_to_be_served_now(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    assert gather(store, run).verdict.endswith("deployed last was the quantized model, which is not served any more.")
    record = stored_runs.server_record("a10")
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "v1.json").write_text(json.dumps(record))
    assert gather(store, run).verdict.endswith("served now is the quantized model.")


def test_arms_that_differ_in_more_than_the_hop_are_not_called_learned(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    for step in store.steps(run):
        if step.stage == "evaluate":
            result = step.result or {}
            result["keys"] = {arm: {**k, "sampling": f"seed {arm}"} for arm, k in result["keys"].items()}
            with store.write() as conn:
                conn.execute("UPDATE steps SET result = ? WHERE step = ?", (json.dumps(result), step.id))
    page = gather(store, run)
    assert "no decision whether it was learned (base and quantized differ in more" in page.verdict
    assert any("differ in more than the hop itself (sampling)" in limit for limit in page.limits)


def test_errors_are_outside_the_rate(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path)
    step = build.step("baseline", arm="base")
    for number in range(10):
        passed = None if number < 2 else number < 6
        error = "timed out" if passed is None else None
        answer = EvalResult("base", "target", f"c{number}", "k", "", passed, None, error=error)
        build.store.add_results(build.run, step, [answer])
    build.end(step, 1.0, 1, {"key": {"engine": "x"}})
    facts, page = written(build.store, build.run, tmp_path)
    score = facts.evaluation.scores["target", "base"]
    assert (score.cases, score.errors, score.passed, score.rate) == (10, 2, 4, 0.5)
    assert "2 errors" in page.text and any("counted apart" in limit for limit in facts.limits)


def answered(
    home: Path, answers: Mapping[str, Mapping[str, str]], *, row_size: int = 1, odd: str = ""
) -> stored_runs.Builder:
    """A run whose arms answered as the letters say: p pass, f fail, e error; `row_size` cases come from one seed row.

    The arm `odd` was sampled in a way of its own.
    """
    build = stored_runs.new_builder(home)
    cases = [
        Case(
            case_id=f"{block}-{n}",
            block=block,
            suite="s",
            messages=({"role": "user", "content": f"message {n} of {block}"},),
            assertions=(Assertion(type="equals", value=f"right of {block}-{n}"),),
            metadata={"seed_row": f"{block}-{n // row_size}"},
        )
        for block, words in answers["base"].items()
        for n in range(len(words))
    ]
    kept = Suite(cases=tuple(cases))
    atomic_write(home / "suite.json", kept.to_json())
    under_test = {"adapter": {"adapter": "d"}, "quantized": {"weights": "q"}, "prompted": {"system_prompt": "s"}}
    for arm, blocks in answers.items():
        step = build.step("baseline" if arm == "base" else "evaluate", arm=arm)
        if arm == "base":
            build.artifact(step, "suite", str(home / "suite.json"), suite_sha256=kept.sha256)
        for block, words in blocks.items():
            for n, word in enumerate(words):
                passed = {"p": True, "f": False}.get(word)
                error = "late" if passed is None else None
                output = f"right of {block}-{n}" if passed else ""
                answer = EvalResult(arm, block, f"{block}-{n}", "k", output, passed, None, error=error)
                build.store.add_results(build.run, step, [answer])
        key = {"engine": "x", "suite": kept.sha256, "sampling": odd == arm, **under_test.get(arm, {})}
        build.end(step, 1.0, 1, {"key": key} if arm == "base" else {"keys": {arm: key}})
    return build


@pytest.mark.heavy
@table(
    ("adapter", "quantized", "odd", "said"),
    [
        (31, "p" * 32 + "f" * 8, "", "was learned: of"),
        (40, "p" * 38 + "f" * 2, "", "was learned: of"),
        (40, "p" * 31 + "f" * 9, "", "was learned by the adapter, and the quantized model was partly learned"),
        (31, "p" * 3 + "f" * 37, "", "was partly learned by the adapter, and the quantized model was not learned"),
        (
            40,
            "p" * 36 + "e" * 4,
            "",
            "by the adapter, and the quantized model was trained, with no decision whether it was learned",
        ),
        (40, "p" * 40, "quantized", "learned (base and quantized differ in more than what is under test"),
        (2, "p" * 40, "", "was learned: of"),
        (2, "e" * 40, "", "was trained, with no decision whether it was learned (0 cases of people count)"),
    ],
)
def test_only_what_was_shown_to_be_less_is_called_not_kept(
    tmp_path: Path, adapter: int, quantized: str, odd: str, said: str
) -> None:
    arms = {"base": "f" * 40, "adapter": "p" * adapter + "f" * (40 - adapter), "quantized": quantized}
    build = answered(tmp_path, {arm: {"target": words} for arm, words in arms.items()}, odd=odd)
    verdict = gather(build.store, build.run).verdict
    assert said in verdict
    assert ("did not keep" in verdict) == ("did not keep" in said)


@table(
    ("quantized", "said"),
    [
        ("f" + "p" * 39, "cannot be decided with so few cases (40 → 40 → 39 of 40)"),
        ("e" * 3 + "p" * 37, "cannot be decided, since 3 of 40 cases erred, over 5%: run them again (40 → 40 → 37"),
        ("f" * 8 + "p" * 32, "the general block got worse"),
    ],
)
def test_that_the_general_block_is_undecided_is_said_with_its_own_cause(
    tmp_path: Path, quantized: str, said: str
) -> None:
    arms = {"base": "p" * 40, "adapter": "p" * 40, "quantized": quantized}
    build = answered(tmp_path, {arm: {"target": "f" * 6, "general": words} for arm, words in arms.items()})
    assert said in gather(build.store, build.run).verdict


@pytest.mark.heavy
@table(
    ("row_size", "power"),
    [
        (1, "target 30 (20 cases) and general 25 (24 cases)"),
        (2, "target 30 (20 cases, 10 independent) and general 25 (24 cases, 12 independent)"),
        (4, "target none at all (20 cases, 5 independent) and general 25 (24 cases, 6 independent)"),
    ],
)
def test_seed_rows_count_in_the_report_as_in_the_comparison(tmp_path: Path, row_size: int, power: str) -> None:
    base = {"target": "f" * 18 + "pp", "general": "p" * 24}
    rest = {arm: {"target": "p" * 17 + "fff", "general": "p" * 23 + "f"} for arm in ("prompted", "quantized")}
    alone = answered(tmp_path / "alone", {"base": base}, row_size=row_size)
    both = answered(tmp_path / "both", {"base": base, **rest}, row_size=row_size)
    for build in (alone, both):
        limits = gather(build.store, build.run).limits
        assert f"The smallest gain that so few cases can show, in points of pass rate: {power}." in limits
    shown = evaluation(both.store, both.run)
    for block, counts in compare_run(both.store, both.run, "base", "quantized").blocks.items():
        for arm, interval in counts.pass_rate_intervals.items():
            score = shown.score(block, arm)
            assert score and (score.low, score.high) == interval
    assert evaluation(alone.store, alone.run).score("target", "base") == shown.score("target", "base")
    low, high = shown.net["prompted"].blocks["target"].pass_rate_intervals["prompted"]
    assert f"95 % interval {low:.0%}–{high:.0%}" in shown.advice


def test_a_spike_of_a_long_curve_is_drawn_and_infinity_is_not() -> None:
    points = [(float(x), 1.0) for x in range(5000)]
    points[3210] = (3210.0, 40.0)
    chart = loss_chart(Curve(points), Curve([]))
    assert chart is not None
    drawn = [float(pair.split(",")[1]) for pair in chart.train.split()]
    assert len(drawn) <= 500 and min(drawn) < 50  # y runs downwards
    assert loss_chart(Curve([(1.0, 2.0)]), Curve([])) is None


@pytest.mark.heavy
def test_which_checkpoint_became_the_adapter_is_told_with_its_figures(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    choice = "kept step 50 of 75: validation 0.243, KL 0.021 ≤ 0.05"
    [trained] = [step for step in store.steps(run, status="done") if step.stage == "train"]
    assert [one.outcome.get("choice") for one, _ in written(store, run, tmp_path)[0].trainings] == [None, None]
    with store.write() as conn:
        conn.execute("UPDATE steps SET result = json_set(result, '$.choice', ?) WHERE step = ?", (choice, trained.id))
    facts, page = written(store, run, tmp_path)
    assert facts.trainings[-1][0].outcome["choice"] == choice and choice in page.text
    assert asked(store, "curve").says == (choice,)
