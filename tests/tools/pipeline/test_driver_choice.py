"""Which driver is proposed for a card: the strongest that fits beside the training, and none without a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.planted_gpus import gpu, plant
from tests.fixtures.tables import table
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.driver.endpoint import Driver
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.models.known_bases import known_bases
from tunesmith.tools.models.known_drivers import driver_of, known_drivers
from tunesmith.tools.pipeline.driver_choice import proposed
from tunesmith.tools.pipeline.workspace import Workspace


def ws(tmp_path: Path) -> Workspace:
    return Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None)


def test_every_listed_driver_says_its_licence_and_why_and_a_later_one_takes_more_of_a_card() -> None:
    listed = known_drivers()
    assert all(one.license in ("Apache-2.0", "MIT") and one.why and one.tool_parser for one in listed)
    needs = [one.vram_bytes for one in listed]
    assert needs == sorted(needs), "the strongest that fits is looked for from the end"
    assert len({one.model for one in listed}) == len(listed) >= 4


@table(("gib", "strongest"), [(12, ""), (24, "4B|7B"), (48, "8B|14B"), (80, "30B|24B")])
def test_the_strongest_driver_that_fits_beside_the_work_is_proposed_with_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float, strongest: str
) -> None:
    plant(monkeypatch, gpu(0, free=gib - 1, total=gib))
    found = proposed(ws(tmp_path))
    if not strongest:
        assert found is None or found.driver.vram_bytes + found.work_bytes <= gib * (1 << 30)
        return
    assert found is not None and found.driver.vram_bytes + found.work_bytes <= found.card.total_bytes
    assert any(part in found.driver.title for part in strongest.split("|")), found.driver.title
    stronger = [one for one in known_drivers() if one.vram_bytes > found.driver.vram_bytes]
    assert all(one.vram_bytes + found.work_bytes > found.card.total_bytes for one in stronger)
    assert found.driver.license in found.question.text and found.question.yes == {"model": found.driver.model}


def test_without_a_card_none_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert proposed(ws(tmp_path)) is None


def test_a_fetched_driver_is_taken_unless_the_settings_name_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = Store(home)
    folder = home / "models" / f"{known_drivers()[1].model.replace('/', '--')}-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    seal(folder)
    run = store.new_run("driver")
    step = store.propose(run, "base", plan_hash="h")
    store.add_artifact(Artifact("", run, step, "driver", folder, step, 1, meta={"name": known_drivers()[1].title}))
    assert Driver(Settings(home=home)).folder() == folder and driver_of(folder.name) == known_drivers()[1]
    named = Settings(home=home, driver=DriverSettings(model="bundled-driver"))
    with pytest.raises(Exception, match="is not here yet"):
        Driver(named).folder()


def test_a_listed_driver_is_no_base_that_is_proposed_twice() -> None:
    """Both lists name models of the hub; a name in both has one shape."""
    bases = {one.model: one.config for one in known_bases(on_card=True)}
    assert all(bases[one.model] == one.config for one in known_drivers() if one.model in bases)
