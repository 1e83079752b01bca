"""What only a card can say, measured on one: the items of `tunesmith doctor --gpu`, and those of `tests.gpu.table`.

`make test-gpu`; `GPU_MINUTES` is the most that all of them may take. No test of `make test`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

import pytest

from tests.gpu.runner import card_environment, check_in, measured, throw_away
from tests.gpu.table import TASKS
from tunesmith.tools.machine.gpus import measure_gpus, pinning, trains_on_cpu, why_no_gpu
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.pipeline.gpu_check.findings import Finding

MINUTES = int(os.environ.get("GPU_MINUTES", "10"))
WHY_NOT = why_no_gpu(measure_gpus(), on_cpu=trains_on_cpu())
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.alone,
    pytest.mark.timeout(60 * MINUTES + 120),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "a card is here"),
]
NAMES = [name for task in TASKS for name in task.gives]


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def findings(
    tmp_path_factory: pytest.TempPathFactory, module_patch: pytest.MonkeyPatch
) -> Iterator[Mapping[str, Finding]]:
    several = pinning(measure_gpus(), 2) if len(measure_gpus()) > 1 else {}
    for name, value in card_environment().items():
        module_patch.setenv(name, value)
    check = check_in(tmp_path_factory.mktemp("check"), vllm=find_vllm(None), several="".join(several.values()))
    try:
        deadline = time.monotonic() + 60 * MINUTES
        yield {item.name: item for item in measured(check, TASKS, deadline=deadline)}
    finally:
        throw_away(check)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_as_predicted(name: str, findings: Mapping[str, Finding]) -> None:
    item = findings[name]
    if item.state == "skipped":
        pytest.skip(item.why)
    assert item.state == "ok", f"{name}: {item.why}; expected {item.expected}, measured {item.measured} {item.unit}"
    if item.within and item.ratio is not None:
        assert item.within[0] <= item.ratio <= item.within[1]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("training peak")])
def test_training_takes_what_it_is_priced_at(name: str, findings: Mapping[str, Finding]) -> None:
    """The tolerance is written here too: who widens it in the item has to do so in sight."""
    item = findings[name]
    assert item.ratio is not None, item.why
    assert 0.85 <= item.ratio <= 1.15


def test_what_is_said_to_fit_does(findings: Mapping[str, Finding]) -> None:
    assert findings["no false fit"].measured == "it does", findings["no false fit"].why
