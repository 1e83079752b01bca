"""Where nobody names a base, the largest that the pace leaves time for is taken, by the plan's own prices."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fixtures.descriptions import COOKING
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.rates import Rates, usual_card, usual_cpu
from tunesmith.tools.core.stage import CPU, GIB, Facts, PlanQuestion
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.models import base
from tunesmith.tools.models.bundled import QWEN_CODER
from tunesmith.tools.models.families import FAMILIES, KNOWN_MODELS
from tunesmith.tools.models.known_bases import KnownBase, known_base, known_bases
from tunesmith.tools.pipeline.base_choice import PACE_LIMIT_S, _choose, _Price, plan_here, with_arm_of_base
from tunesmith.tools.pipeline.behaviour_plan import Pace, Quantizing, deploying, plan_for
from tunesmith.tools.pipeline.fits import with_card
from tunesmith.tools.pipeline.forecast import forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.suites.loading import load_suites

COMMIT = "c" * 40
OPEN_LICENSES = {"Apache-2.0", "MIT"}


class Here:
    """A behaviour, a home, and a machine that is said to be there."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = write_behaviour(COOKING, folder)
        self.ws = Workspace(Store(folder / "home"), "/bin/true", lambda event, **data: None)
        self._patch = patch

    def machine(self, speed: float = 1.0, *, ram_gib: float = 24, card_gib: float = 0) -> Facts:
        """So many times as fast as two usual cores, or as a usual card."""
        machine = Machine("a processor", 2, int(ram_gib * GIB), int(ram_gib * GIB), 0, 5000 * GIB)
        facts = with_card(machine, card_gib) if card_gib else Facts(Path(), machine, "", "/bin/true")
        usual = usual_card() if card_gib else usual_cpu(2)
        device = facts.machine.gpus[0].name if card_gib else CPU
        rates = Rates(*(speed * rate for rate in (usual.bf16_flops, usual.fp32_flops, usual.memory_bytes_s)), 1e9)
        return replace(facts, measured={device: rates}, here=True)

    def seconds(self, facts: Facts, pace: Pace, model: str, teacher: str) -> float:
        prices = forecast(self.ws, plan_for(self.folder, pace, model=model, teacher=teacher), facts=facts)
        return sum(price.estimate.seconds for price in prices if price.estimate)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(tmp_path, monkeypatch)


def models(plan: PipelinePlan) -> tuple[str, str]:
    """Base and writer; the latter is empty where the base writes its own rows."""
    named = {str(s.fields.get("role", "base")): str(s.fields["model"]) for s in plan.steps if s.stage == "base"}
    return named["base"], named.get("teacher", "")


@pytest.mark.heavy
@pytest.mark.parametrize(("pace", "speed"), [("fast", 1.0), ("fast", 20.0), ("full", 0.6)])
def test_what_a_larger_base_would_cost_is_what_its_own_plan_says(here: Here, pace: Pace, speed: float) -> None:
    facts = here.machine(speed)
    plan = plan_here(here.ws, here.folder, pace, facts=facts)
    model, writer = models(plan)
    names = [one.model for one in known_bases(on_card=False)]
    assert here.seconds(facts, pace, model, writer) <= PACE_LIMIT_S[pace] or model == names[0]
    for larger in names[names.index(model) + 1 :][:1]:
        cost = here.seconds(facts, pace, larger, "" if larger == "bundled-1.5b" else "bundled-1.5b")
        assert cost > PACE_LIMIT_S[pace]
        assert f"would take about {round(cost / 60)} min (--model {larger})" in plan.reasons[0]


class Planted:
    """Prices that no machine gave."""

    pace: Pace = "fast"
    own = False

    def __init__(self, known: Mapping[tuple[str, str], float], own_model: str = "") -> None:
        self.known, self.ws = known, SimpleNamespace(own_model=own_model)

    def of(self, base: KnownBase, writer: KnownBase) -> _Price:
        minutes = self.known[base.model, writer.model]
        return _Price(60 * minutes) if minutes < 1000 else _Price(0.0, "train needs 99 GiB")


def test_over_any_prices_base_and_writer_are_the_largest_that_fit() -> None:
    draw, listed = random.Random(5), known_bases(on_card=True)
    for _ in range(300):
        known = {(b.model, w.model): draw.choice((5, 20, 29, 31, 90, 5000)) for b in listed for w in listed}
        choice = _choose(Planted(known), listed, None, None)  # type: ignore[arg-type]
        base, writer = choice.base, choice.writer
        assert writer.parameters >= max(base.parameters, 1e9), "a smaller model never writes for a larger one"
        assert (cost := known[base.model, writer.model]) <= 30 or base == listed[0]
        stronger = [w for w in listed if w.parameters > writer.parameters]
        assert cost > 30 or all(known[base.model, w.model] > 30 for w in stronger)
        for larger in listed[listed.index(base) + 1 :]:
            cheapest = larger if larger.parameters >= 1e9 else known_base("bundled-1.5b")
            assert cheapest and known[larger.model, cheapest.model] > 30
        assert choice.reasons[0].startswith(f"base {base.title} (") and "writes the rows" in choice.reasons[1]
        assert ("no base is taught within 30 min here" in choice.reasons[0]) == (cost > 30)
        assert ("the strongest within" in choice.reasons[1]) <= (cost <= 30)


@table(("minutes", "writer"), [(29, "mine"), (31, "bundled-1.5b"), (5000, "bundled-1.5b")])
def test_a_stronger_model_that_the_user_serves_writes_where_the_pace_has_room(
    minutes: int, writer: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**dict(QWEN_CODER.config), "num_hidden_layers": 40}))
    prices = Planted({("bundled", "bundled-1.5b"): 20, ("bundled", str(folder)): minutes}, str(folder))
    choice = _choose(prices, known_bases(on_card=False), known_base("bundled"), None)  # type: ignore[arg-type]
    assert choice.writer.title == (known.title if (known := known_base(writer)) else writer)
    [why] = choice.reasons
    assert ("with mine the plan" in why) == (writer != "mine")


@pytest.mark.heavy
def test_a_model_of_the_hub_is_looked_up_after_a_yes_alone(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def newest(name: str, revision: str = "") -> str:
        asked.append(name)
        return COMMIT

    monkeypatch.setattr(base, "newest_commit", newest)
    facts = here.machine(card_gib=24, ram_gib=64)
    for answer in (None, False):
        plan = plan_here(replace(here.ws, ask=lambda question, said=answer: said), here.folder, "fast", facts=facts)
        assert models(plan)[0] == "bundled-1.5b" and not asked
        assert "nobody said yes to it (--model " in plan.reasons[-2]
    questions: list[PlanQuestion] = []

    def yes(question: PlanQuestion) -> bool:
        questions.append(question)
        return True

    plan = plan_here(replace(here.ws, ask=yes), here.folder, "fast", facts=facts)
    model, writer = models(plan)
    known = known_base(model)
    assert known is not None and known.on_hub and 2 * known.parameters < 24 * GIB
    assert known.license in plan.reasons[0] and known.license in questions[0].text and model in questions[0].text
    of_hub = [s.fields for s in plan.steps if s.stage == "base" and "/" in str(s.fields["model"])]
    revisions = [fields.get("revision") for fields in of_hub]
    assert revisions == [COMMIT] * len({model, writer} - {""}) and set(asked) == {model, writer} - {""}


def test_without_the_hub_the_packaged_models_are_left_and_that_is_said(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str, revision: str = "") -> str:
        raise BadInput("the hub cannot be reached")

    monkeypatch.setattr(base, "newest_commit", offline)
    ws, facts = replace(here.ws, ask=lambda question: True), here.machine(card_gib=24, ram_gib=64)
    plan = plan_here(ws, here.folder, "fast", facts=facts)
    assert models(plan)[0] == "bundled-1.5b" and "left out: the hub cannot be reached" in plan.reasons[-2]
    with pytest.raises(BadInput, match="cannot be reached"):
        plan_here(ws, here.folder, "fast", model="Qwen/Qwen3-4B", facts=facts)


def test_what_is_named_is_taken_and_needs_no_reason(here: Here) -> None:
    plan = plan_here(here.ws, here.folder, "fast", model="bundled", writer="bundled-driver", facts=here.machine())
    assert models(plan) == ("bundled", "bundled-driver")
    assert [why.partition(":")[0] for why in plan.reasons] == ["deploy the quantized model"]
    why, _ = plan_here(here.ws, here.folder, "fast", model="bundled", facts=here.machine()).reasons
    assert "writes the rows" in why
    own = plan_here(here.ws, here.folder, "full", model="bundled-driver", facts=here.machine())
    assert models(own) == ("bundled-driver", ""), "no model is served beside another"


@pytest.mark.heavy
def test_a_plan_fetches_the_judge_that_neither_base_nor_writer_is(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "newest_commit", lambda name, revision="": "")
    pairs = {
        ("Qwen/Qwen3-30B-A3B", ""): True, ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B"): True,
        ("Qwen/Qwen3-8B", "bundled-1.5b"): False, ("bundled-driver", ""): False, ("bundled", ""): False,
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct", "Qwen/Qwen2.5-Coder-1.5B-Instruct"): True,
    }  # fmt: skip

    def fetched() -> dict[tuple[str, str], bool]:
        found = {}
        for model, writer in pairs:
            facts = here.machine(card_gib=80) if "/" in model else here.machine()
            plan = plan_here(here.ws, here.folder, "fast", model=model, writer=writer, facts=facts)
            assert [price.refused for price in forecast(here.ws, plan, facts=facts) if price.refused] == []
            drivers = [s.fields["model"] for s in plan.steps if s.fields.get("role") == "driver"]
            assert drivers in ([], ["bundled-driver"])
            assert ("the driver is fetched to judge" in " ".join(plan.reasons)) == bool(drivers)
            found[model, writer] = bool(drivers)
        return found

    assert fetched() == pairs
    copy = here.ws.store.home / "models" / QWEN_CODER.name
    copy.mkdir(parents=True)
    (copy / "manifest.json").write_text(json.dumps({"sha256": "0" * 64, "bytes": 0, "files": {}}))
    assert fetched() == dict.fromkeys(pairs, False), "it is here already"


def test_for_another_machine_nothing_is_looked_up_or_asked(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "newest_commit", lambda *_: pytest.fail("the hub is asked"))
    ws = replace(here.ws, ask=lambda question: pytest.fail("a person is asked"))
    elsewhere = replace(here.machine(card_gib=24, ram_gib=64), here=False)
    plan = plan_here(ws, here.folder, "fast", facts=elsewhere)
    chosen = known_base(models(plan)[0])
    assert chosen and chosen.on_hub and chosen.license in plan.reasons[0], "the largest, as after a yes"
    for name in ("Qwen/Qwen3-30B-A3B", "google/gemma-2-9b-it"):
        named = plan_here(ws, here.folder, "fast", model=name, facts=elsewhere)
        assert models(named)[0] == name and not any("revision" in spec.fields for spec in named.steps)


def test_the_list_is_short_open_and_counted_by_the_families() -> None:
    hub = [one for one in known_bases(on_card=True) if one.on_hub]
    assert 5 <= len(hub) <= 12
    assert {one.license for one in hub} <= OPEN_LICENSES and all(one.why for one in hub)
    assert {one.model for one in hub} <= {model.name for model in KNOWN_MODELS}
    assert {one.config["model_type"] for one in hub} <= FAMILIES, "nobody is led to a kind that was never tried"
    assert all(1e9 <= one.parameters <= 31e9 for one in hub)
    assert not any(one.on_hub for one in known_bases(on_card=False))


def test_a_reason_goes_with_the_model_that_it_is_about(here: Here) -> None:
    plan = plan_here(here.ws, here.folder, "fast", facts=here.machine())
    longer = tuple(
        s.model_copy(update={"fields": {**s.fields, "epochs": 2.0}}) if s.stage == "train" else s for s in plan.steps
    )
    other = tuple(
        s.model_copy(update={"fields": {**s.fields, "model": "./mine"}}) if s.stage == "base" else s for s in plan.steps
    )
    assert plan.reasons and plan.with_steps(longer).reasons == plan.reasons
    assert plan.with_steps(other).reasons == ()


def test_suites_that_come_with_tunesmith_are_whole_each_time_they_are_read() -> None:
    first, again = (load_suites([Path("general"), Path("tools")]) for _ in range(2))
    assert first == again and len(first.cases) > 80


def made(plan: PipelinePlan) -> list[str]:
    """Its steps from the training on, each with its arm."""
    steps = [f"{spec.stage} {spec.fields.get('arm', '')}".strip() for spec in plan.steps]
    return steps[steps.index("train") :]


ADAPTER = ["train", "evaluate adapter", "deploy adapter"]
WHOLE = ["train", "evaluate adapter", "merge", "quantize", "evaluate quantized", "deploy quantized"]


@pytest.mark.heavy
@table(
    ("model", "card", "quantize", "steps"),
    [
        ("Qwen/Qwen3-4B", 16, "auto", ADAPTER),
        ("Qwen/Qwen3-4B", 16, "yes", WHOLE),
        ("Qwen/Qwen3-4B", 8, "auto", WHOLE),
        ("Qwen/Qwen3-4B", 8, "no", ADAPTER),
        ("bundled", 0, "auto", WHOLE),
    ],
)
def test_what_is_deployed_is_decided_by_base_and_card_unless_somebody_says_it(
    model: str, card: float, quantize: Quantizing, steps: list[str], here: Here
) -> None:
    facts = replace(here.machine(card_gib=card), here=False)
    plan = plan_here(here.ws, here.folder, "fast", model=model, writer=model, facts=facts, quantize=quantize)
    assert made(plan) == steps
    assert any(why.startswith("deploy the") for why in plan.reasons) == plan.arm_by_base == (quantize == "auto")


@pytest.mark.heavy
def test_another_base_or_card_decides_again_what_is_deployed_and_nothing_else(here: Here) -> None:
    small, large = (replace(here.machine(card_gib=card), here=False) for card in (8, 48))
    model = "Qwen/Qwen3-4B"
    plan = plan_here(here.ws, here.folder, "full", model=model, writer=model, facts=large)
    elsewhere = with_arm_of_base(here.ws, plan, facts=small)
    assert (made(plan), made(elsewhere)) == (ADAPTER, WHOLE)
    tests = [spec.fields for spec in elsewhere.steps if spec.stage == "evaluate"]
    assert tests[-1] == {**tests[-2], "arm": "quantized"}, "every arm is measured alike"
    back = with_arm_of_base(here.ws, elsewhere, facts=large)
    assert back == plan, "reasons too"
    changed = tuple(
        one.model_copy(update={"fields": {"model": "Qwen/Qwen3-30B-A3B"}}) if one.stage == "base" else one
        for one in plan.steps
    )
    assert made(with_arm_of_base(here.ws, plan.with_steps(changed), facts=large)) == WHOLE
    typed = plan_here(here.ws, here.folder, "full", model=model, writer=model, facts=large, quantize="no")
    assert made(with_arm_of_base(here.ws, typed, facts=small)) == ADAPTER, "what was said stays"
    own = elsewhere.with_steps(deploying(elsewhere.steps, "adapter"))
    assert made(with_arm_of_base(here.ws, own, facts=small)) == ADAPTER, "steps that somebody took out stay out"
