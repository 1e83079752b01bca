"""Every item of the check on a card, carried out for real on the processor: tiny models, the same code.

What is asserted is what does not depend on the device: that each item is told under its name, and what arithmetic says
of bytes, of documents, of merges and of codes. A small model's seconds and peaks on a busy processor say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fixtures.first_card_here import TINY
from tests.gpu.runner import check_in, measured, throw_away, work_of
from tests.gpu.table import MODELS, TASKS, Check, Task
from tunesmith.tools.machine.probe import measured_rates
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline.gpu_check.findings import Finding
from tunesmith.tools.serving import servers

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
TIMED = ("training", "GPTQ seconds", "server start", "server memory", "answers", "rate", "split")
"""How the names of what a busy processor decides begin, or end."""


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Check]:
    folder = tmp_path_factory.mktemp("check")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of the servers: threads that spin wait long beside other programs
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        made = check_in(folder, device="cpu", vllm=find_vllm(None), sizes=TINY)
        yield made
        throw_away(made)
        torch.set_num_threads(threads)


def _each() -> list[object]:
    """Tasks; those that start a server are slow, and `make test` has the like of them with real weights."""
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(task, id=task.doing, marks=marks[task.needs_vllm]) for task in TASKS]


@pytest.mark.parametrize("task", _each())
def test_each_item_is_told_and_what_no_clock_decides_is_as_predicted(task: Task, check: Check) -> None:
    if task.needs_vllm and not check.vllm:
        pytest.skip("no vLLM is here to serve")
    found = list(work_of(task.work)(check))
    assert [item.name for item in found] == list(task.gives)
    for item in found:
        told = f"{item.name}: {item.why} ({item.measured})"
        if item.name.startswith(TIMED) or item.name.endswith(TIMED):
            assert isinstance(item.measured, float) and item.measured >= 0, told
            assert isinstance(item.expected, float) and item.expected > 0, told
        else:
            assert item.state in ("ok", "skipped"), told
    assert [item for item in found if item.state == "skipped"] == [item for item in found if _is_a_cards(item)]


def _is_a_cards(item: Finding) -> bool:
    """Whether only a card has it."""
    return item.name.startswith(
        ("driver", "compute", "total memory", "CUDA", "free memory", "NF4 allocated", "served weights",
         "server beside", "adapter slots", "adapter of", "memory freed", "seconds until", "GPTQ peak")
    )  # fmt: skip


def test_what_was_measured_of_the_device_is_kept_for_prices(check: Check) -> None:
    assert measured_rates(check.home)["CPU"].measured


def test_rows_have_exactly_the_tokens_that_are_priced(check: Check) -> None:
    from transformers import AutoTokenizer

    from tests.gpu.measures import make_model, make_rows
    from tunesmith.tools.data.rows import read_rows
    from tunesmith.tools.training.rows import tokenize_rows

    model = make_model(check, "dense", check.sizes.dense)
    rows = tokenize_rows(AutoTokenizer.from_pretrained(model), read_rows(make_rows(check, model, 30, 100)), 100)
    assert {len(row.input_ids) for row in rows} == {100} and min(row.trainable for row in rows) > 70
    assert sum(file.stat().st_size for file in model.glob("*.safetensors")) == pytest.approx(
        2 * ModelShape.of(check.sizes.dense).parameters, rel=0.01
    )


def test_a_process_of_its_own_does_the_same_and_leaves_nothing(check: Check) -> None:
    [task] = [task._replace(seconds=100) for task in TASKS if task.work.endswith("cards:rates")]
    found = list(measured(check, [task], deadline=time.monotonic() + 600))
    assert [item.name for item in found] == list(task.gives) and all(item.measured for item in found)
    throw_away(check)
    assert not (check.dir / MODELS).exists() and not servers.list_servers(check.home)
