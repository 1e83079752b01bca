"""What lets a model be deployed: the evaluation of that very model, against the base and over every hop on its way."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.stored_runs import Builder
from tunesmith.agent.commands import render
from tunesmith.agent.commands.summary import summarise
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation import gate
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.comparison import ERRED, BlockScore
from tunesmith.tools.evaluation.gate import gate_of
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import Evaluations, compare_run

KEY = {"engine": "vllm 0.32", "adapter": "none", "lora": "up to 16", "suite": "s", "sampling": "max_tokens=72"}
MADE_BY = {"base": "base", "adapter": "train", "merged": "merge", "quantized": "quantize"}
LEARNS = {"base": "f" * 40, "adapter": "p" * 40, "merged": "p" * 40, "quantized": "p" * 40}


class Chain:
    """A run whose models are made and evaluated one by one; a word holds a letter for each case of a block."""

    def __init__(self, home: Path) -> None:
        self.build: Builder = stored_runs.new_builder(home)
        self.store, self.run = self.build.store, self.build.run
        self.made: dict[str, str] = {}

    def make(self, *arms: str) -> None:
        for arm in arms:
            parents = {"base": (), "adapter": ("base",), "merged": ("base", "adapter"), "quantized": ("merged",)}[arm]
            step = self.build.step(MADE_BY[arm], arm=arm)
            self.made[arm] = self.build.artifact(step, arm, "", *(self.made[kind] for kind in parents))
            self.build.end(step, 1.0, 1)

    def key(self, arm: str, **changed: Any) -> dict[str, Any]:
        served = self.store.artifact(self.made["base" if arm in ("adapter", "prompted") else arm]).sha256
        key = {**KEY, "weights": served, **changed}
        return {**key, "adapter": self.store.artifact(self.made[arm]).sha256} if arm == "adapter" else key

    def evaluate(self, arm: str, blocks: Mapping[str, str], **changed: Any) -> str:
        step = self.build.step("baseline" if arm == "base" else "evaluate", arm=arm)
        for block, word in blocks.items():
            for n, letter in enumerate(word):
                passed, error = (None, "timed out") if letter == "e" else (letter == "p", None)
                score = None if passed is None else float(passed)
                row = EvalResult(arm, block, f"{block}-{n}", "k", "", passed, score, error=error)
                self.store.add_results(self.run, step, [row])
        key = self.key(arm, **changed)
        self.build.end(step, 1.0, 1, {"key": key} if arm == "base" else {"keys": {arm: key}})
        return step

    def evaluate_together(self, words: Mapping[str, str]) -> str:
        """Base and adapter on one server."""
        step = self.build.step("evaluate", arm="adapter")
        for arm, word in words.items():
            for n, letter in enumerate(word):
                row = EvalResult(arm, "target", f"target-{n}", "k", "", letter == "p", float(letter == "p"))
                self.store.add_results(self.run, step, [row])
        self.build.end(step, 1.0, 1, {"keys": {arm: self.key(arm) for arm in words}})
        return step

    def broken(self, arm: str = "quantized") -> list[str]:
        return list(gate_of(self.store, self.run, arm).broken)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    made = Chain(tmp_path)
    made.make("base", "adapter", "merged", "quantized")
    return made


def evaluated(chain: Chain, block: str, words: Mapping[str, str]) -> Chain:
    """A target that every arm but the base passes, and beside it a block as `words` says, arm by arm."""
    for arm, word in words.items():
        chain.evaluate(arm, {"target": LEARNS[arm], block: word})
    return chain


def test_a_whole_arc_that_went_well_is_let_through(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    assert not any(gate_of(store, run, arm).broken for arm in ("adapter", "merged", "quantized"))


@pytest.mark.parametrize("blocks", [{"general": "p" * 40}, {"adversarial": "p" * 20}])
def test_what_no_case_of_the_target_was_asked_of_is_warned_of(chain: Chain, blocks: Mapping[str, str]) -> None:
    for arm in ("base", "quantized"):
        chain.evaluate(arm, blocks)
    found = gate_of(chain.store, chain.run, "quantized")
    assert found.broken == () and found.warnings[0].startswith("no decision: 0 cases of people count")


def test_a_guarded_block_that_was_asked_of_one_arm_alone_did_not_hold(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arm in ("base", "quantized"):
        chain.evaluate(arm, {"target": LEARNS[arm]})
    monkeypatch.setattr(gate, "compare_run", lambda *a, **b: replace(compare_run(*a, **b), left_out={"tools": 9}))
    [told] = chain.broken()
    assert told.startswith("tools: no case of it was asked of both")


def test_a_target_that_got_worse_is_refused(chain: Chain) -> None:
    for arm, word in {"base": "p" * 40, "quantized": "p" * 20 + "f" * 20}.items():
        chain.evaluate(arm, {"target": word})
    [told] = chain.broken()
    assert told.startswith("target: worse (40 → 20 of 40 passed)")


def test_a_hop_that_lost_what_was_learned_is_refused_though_the_base_is_beaten(chain: Chain) -> None:
    for arm, word in {**LEARNS, "quantized": "p" * 20 + "f" * 20}.items():
        chain.evaluate(arm, {"target": word})
    [told] = chain.broken()
    assert "merged → quantized, target: worse (40 → 20 of 40 passed, p = 1.9e-06)" in told
    assert "--arms merged,quantized` shows the flips" in told and "\n" not in told
    assert chain.broken("merged") == []
    found = compare_with_hops(chain.store, chain.run, "base", "quantized")
    assert [gate for gate in found.broken_gates if "merged → quantized, target got worse" in gate]


@pytest.mark.parametrize(
    ("merged", "quantized", "refused"), [(10, 5, False), (10, 4, True), (7, 5, False), (7, 4, True)]
)
def test_less_than_half_of_ten_won_cases_is_never_served_lost_at_once_or_hop_by_hop(
    chain: Chain, merged: int, quantized: int, refused: bool
) -> None:
    """Ten cases are the fewest with which anything is claimed."""
    for arm, kept in {"base": 0, "adapter": 10, "merged": merged, "quantized": quantized}.items():
        chain.evaluate(arm, {"target": "p" * kept + "f" * (10 - kept)})
    assert ["target: worse" in told for told in chain.broken()] == [True] * refused
    assert not refused or merged == 10 or chain.broken()[0].startswith("adapter → quantized, target")
    assert chain.broken("merged") == []


@pytest.mark.parametrize("target", [(87, 84), (20, 17)])
def test_a_hops_loss_that_may_be_chance_is_let_through(chain: Chain, target: tuple[int, int]) -> None:
    cases, kept = target
    words = {"base": "f" * cases, "adapter": "p" * cases, "quantized": "p" * kept + "f" * (cases - kept)}
    for arm, word in words.items():
        chain.evaluate(arm, {"target": word})
    assert chain.broken() == []


@pytest.mark.parametrize("block", ["general", "tools"])
def test_a_guarded_block_that_is_shown_to_have_lost_is_refused(chain: Chain, block: str) -> None:
    evaluated(chain, block, {"base": "p" * 24, "quantized": "p" * 19 + "f" * 5})
    [told] = chain.broken()
    assert told.startswith(f"{block} got worse: 24 → 19 of 24 passed; ")


@pytest.mark.heavy
@pytest.mark.parametrize(("cases", "lost"), [(20, 1), (20, 4), (60, 5), (100, 5), (260, 5)])
def test_a_guarded_block_may_lose_what_chance_explains_and_that_is_told(chain: Chain, cases: int, lost: int) -> None:
    words = dict.fromkeys(("base", "adapter", "merged"), "p" * cases)
    evaluated(chain, "general", {**words, "quantized": "f" * lost + "p" * (cases - lost)})
    assert chain.broken() == []
    told = [line for line in gate_of(chain.store, chain.run, "quantized").warnings if "general: " in line]
    assert bool(told) == (cases < 100)


def test_a_loss_over_the_margin_of_so_many_cases_is_refused_without_the_test(chain: Chain) -> None:
    base, quantized = "p" * 240 + "f" * 20, "f" * 34 + "p" * 226
    evaluated(chain, "general", {"base": base, "quantized": quantized})
    [told] = chain.broken()
    assert told.startswith("general got worse: 240 → 226 of 260 passed; ")


@pytest.mark.parametrize("erring", ["base", "merged", "quantized"])
def test_errors_do_not_get_a_guarded_block_through(chain: Chain, erring: str) -> None:
    words = dict.fromkeys(("base", "merged", "quantized"), "p" * 24) | {erring: "p" * 19 + "e" * 5}
    [told] = evaluated(chain, "general", words).broken()
    assert "general: no decision (19 → 19 of 19 passed, 5 of 24 cases erred, over 5%: evaluate again)" in told
    assert told.startswith("base → merged, ") == (erring == "merged")


def test_a_model_that_was_made_anew_is_not_served_on_what_the_one_before_it_did(chain: Chain) -> None:
    for arm, word in LEARNS.items():
        chain.evaluate(arm, {"target": word})
    assert chain.broken() == []
    chain.make("adapter", "merged", "quantized")
    for arm in ("adapter", "merged", "quantized"):
        [told] = chain.broken(arm)
        assert f"no finished evaluation of the arm '{arm}' as it is now ({chain.made[arm]})" in told


def test_hops_of_another_line_count_neither_for_nor_against(chain: Chain) -> None:
    chain.evaluate("base", {"target": "f" * 40})
    chain.evaluate("merged", {"target": "p" * 40})
    chain.make("adapter", "merged", "quantized")
    chain.evaluate("quantized", {"target": "p" * 20 + "f" * 20})
    assert chain.broken() == []


def test_an_evaluation_under_other_settings_does_not_hide_behind_an_older_one(chain: Chain) -> None:
    chain.evaluate("base", {"target": "f" * 40})
    chain.evaluate("merged", {"target": "p" * 40})
    chain.make("adapter", "merged")
    newest = chain.evaluate("merged", {"target": "f" * 40}, sampling="max_tokens=96")
    found = compare_run(chain.store, chain.run, "base", "merged")
    assert found.steps["merged"] == newest and found.differs_in == ("sampling",)
    [told] = chain.broken("merged")
    assert "sampling: max_tokens=72 against max_tokens=96" in told


def test_an_adapter_is_not_compared_with_the_merge_of_another(chain: Chain) -> None:
    chain.evaluate("adapter", {"target": "p" * 40})
    chain.evaluate("merged", {"target": "p" * 40})
    assert compare_run(chain.store, chain.run, "adapter", "merged").comparable
    first = chain.store.artifact(chain.made["adapter"]).sha256
    chain.make("adapter", "merged")
    chain.evaluate("merged", {"target": "p" * 40})
    second = chain.store.artifact(chain.made["adapter"]).sha256
    for arms in (("adapter", "merged"), ("merged", "adapter")):
        found = compare_run(chain.store, chain.run, *arms)
        assert found.differs_in == ("origin",)
        assert f"adapter {first[:12]}" in found.refused and f"adapter {second[:12]}" in found.refused


def test_the_artifact_that_a_comparison_is_of_goes_by_the_newest_that_fits(chain: Chain) -> None:
    chain.evaluate("adapter", {"target": "p" * 40})
    fits = chain.evaluate("merged", {"target": "p" * 40})
    chain.evaluate("merged", {"target": "p" * 40}, weights="other")
    one = Lineage.of(chain.store, chain.store.artifact(chain.made["merged"]), "merged")
    assert one.arms == ("base", "adapter", "merged") and one.base == chain.store.artifact(chain.made["base"])
    assert compare_run(chain.store, chain.run, "adapter", "merged", lineage=one).steps["merged"] == fits


def test_a_prompt_rivals_an_adapter_whose_server_allows_a_higher_rank(chain: Chain) -> None:
    chain.evaluate("prompted", {"target": "p" * 40}, system_prompt="p")
    chain.evaluate("adapter", {"target": "p" * 40}, lora="up to 32")
    assert compare_run(chain.store, chain.run, "prompted", "adapter").comparable


def told_alike(chain_or_run: tuple[Store, str]) -> int:
    """Every flip that the view tells is one that `compare` tells of a pair that it may; how many there are."""
    store, run = chain_or_run
    count = 0
    arms = Evaluations.of(store, run).arms
    for a, b in itertools.permutations(arms, 2):
        rows = store.read("SELECT case_id, flip FROM v_flips WHERE run = ? AND arm_a = ? AND arm_b = ?", run, a, b)
        found = compare_run(store, run, a, b)
        flips = {(flip.case_id, flip.kind) for flip in found.flips if flip.kind != ERRED} if found.comparable else set()
        assert {(row["case_id"], row["flip"]) for row in rows} == flips, (a, b)
        count += len(flips)
    return count


def test_the_view_of_flips_and_compare_agree(tmp_path: Path) -> None:
    assert told_alike(stored_runs.finished_run(tmp_path)) > 100


def test_the_view_of_flips_pairs_as_compare_does_when_arms_were_evaluated_again_and_again(chain: Chain) -> None:
    words = [f"{n:08b}".replace("0", "f").replace("1", "p") for n in range(1, 256, 7)]
    chain.evaluate("base", {"target": words[0]})
    chain.evaluate("base", {"target": words[1]}, sampling="max_tokens=96")
    chain.evaluate("adapter", {"target": words[2]})
    chain.evaluate("merged", {"target": words[3]})
    assert told_alike((chain.store, chain.run)) > 0, "the newest base was asked otherwise, an older one was not"
    chain.make("adapter")
    chain.evaluate("adapter", {"target": words[4]})
    assert told_alike((chain.store, chain.run)) > 0, "the merged model was made from the adapter before"
    assert compare_run(chain.store, chain.run, "adapter", "merged").comparable
    chain.evaluate("merged", {"target": words[5]}, engine="another")
    assert not compare_run(chain.store, chain.run, "base", "merged").comparable
    together = chain.evaluate_together({"base": words[6], "adapter": words[7]})
    chain.evaluate("base", {"target": words[8]})
    assert compare_run(chain.store, chain.run, "base", "adapter").steps == {"base": together, "adapter": together}
    assert told_alike((chain.store, chain.run)) > 0


def test_an_error_is_no_failure_in_any_share_that_is_shown(chain: Chain) -> None:
    evaluated(chain, "general", {"base": "p" * 24, "quantized": "p" * 19 + "e" * 5})
    [found] = (summary := summarise(chain.store, chain.run)).comparisons
    rates = summary.blocks["general"]
    assert (rates["base"].rate, rates["quantized"].rate) == (1.0, 1.0)
    assert rates["quantized"] == BlockScore(cases=24, judged=19, passed=19, errors=5)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render.comparison_table(found), render.rates_table(summary.blocks))
    assert console.export_text().count("19 of 19 (100%), 5 errors") == 2
    told = {(one["block"], one["arm"]): one for one in asked(chain.store, "result", run=chain.run).facts}
    guarded = {"passed": 19, "judged": 19, "share": 1.0, "errors": 5}
    assert [block for (block, arm), one in told.items() if arm == "quantized" and guarded.items() <= one.items()]
