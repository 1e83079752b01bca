"""Evaluations: what is asked, how often, what is kept, what stops a verdict, and who answers when vLLM will not."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.bench._harness import new_job, server_at, stub, write_suite
from tests.fixtures import FIXTURES
from tests.fixtures.steps import requests_sent, say_yes
from tunesmith.agent.commands.render import comparison_table
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.evaluation.asking import Arm, Keep, Question, run_arms, server_answers
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.local_model import refuse_unanswerable
from tunesmith.tools.evaluation.prompts import prompt_of
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.pipeline.run_step import Outcome, decide, price, propose, resume_step, run_step
from tunesmith.tools.pipeline.start_step import follow_step, start
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatResponse
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Assertion
from tunesmith.tools.suites.loading import load_named_suites, subsample

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_chat.py")


RUN = "r1"


@pytest.fixture
def ws(based: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    shutil.copytree(based / "home", tmp_path / "home")
    yield Workspace(Store(tmp_path / "home"), STUB, lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def texts(bodies: list[dict[str, Any]]) -> list[str]:
    return sorted(body["messages"][-1]["content"] for body in bodies)


def suite(ws: Workspace, questions: list[str], head: str = "", value: str = "yes") -> str:
    path = ws.store.home.parent / "suite.yaml"
    tests = [{"vars": {"q": q}, "metadata": {"case_id": f"c-{q}", "block": "target"}} for q in questions]
    expect = json.dumps([{"type": "contains", "value": value}])
    path.write_text(f"prompts: ['{{{{q}}}}']\ndefaultTest: {{assert: {expect}}}\n{head}tests: {json.dumps(tests)}\n")
    return str(path)


def baseline(ws: Workspace, run: str, file: str, **fields: Any) -> Step:
    return run_step(ws, StepRequest("baseline", {"suites": (file,), **fields}, run), say_yes).done()


def test_only_changed_cases_are_asked_again_and_changed_expectations_cost_nothing(ws: Workspace) -> None:
    first = baseline(ws, RUN, suite(ws, ["a", "b", "c", "d"]))
    again = baseline(ws, RUN, suite(ws, ["a", "b", "c", "x"]))
    assert texts(requests_sent(ws)) == ["a", "b", "c", "d", "x"]
    assert (again.result or {})["taken_over"] == 3
    answers = {r.case_id: r.output for r in ws.store.results(first.id)}
    assert all(r.output == answers[r.case_id] for r in ws.store.results(again.id) if r.case_id != "c-x")
    graded_anew = baseline(ws, RUN, suite(ws, ["a", "b", "c", "x"], value=" "))
    assert len(requests_sent(ws)) == 5
    assert (graded_anew.result or {})["blocks"]["target"]["passed"] == 4
    baseline(ws, RUN, suite(ws, ["a", "b"]), fresh=True)
    baseline(ws, RUN, suite(ws, ["a", "b"]), max_tokens=7)
    assert texts(requests_sent(ws)[5:]) == ["a", "a", "b", "b"], "other sampling is another question"


def test_a_yes_holds_for_the_suite_that_was_read_and_no_other(ws: Workspace) -> None:
    plan = price(ws, StepRequest("baseline", {"suites": (suite(ws, ["a"]),)}, RUN))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    suite(ws, ["a", "b"])
    start(ws, step)
    with pytest.raises(StepFailed, match="the suite was changed after its plan was approved"):
        Outcome(follow_step(ws, step)).done()
    assert requests_sent(ws) == []


def test_repeats_have_a_seed_each_and_are_one_verdict_a_case(ws: Workspace) -> None:
    step = baseline(ws, RUN, suite(ws, ["a", "b"]), repeats=3, temperature=0.7)
    assert sorted((b["messages"][-1]["content"], b["seed"]) for b in requests_sent(ws)) == [
        (q, seed) for q in "ab" for seed in range(3)
    ]
    assert len({r.output for r in ws.store.results(step.id) if r.case_id == "c-a"}) == 3
    block = (step.result or {})["blocks"]["target"]
    passes = Counter(r.case_id for r in ws.store.results(step.id) if r.passed)
    assert block == {"cases": 2, "passed": sum(2 * n > 3 for n in passes.values()), "errors": 0}
    assert (step.result or {})["key"]["repeats"] == 3


def test_a_suite_that_says_how_to_sample_is_obeyed(ws: Workspace) -> None:
    head = "providers: [{id: openai:chat:x, config: {temperature: 0.5, max_tokens: 9, stop: ['#']}}]\n"
    baseline(ws, RUN, suite(ws, ["a"], head))
    body = requests_sent(ws)[0]
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.5, 9, ["#"])


def test_errors_are_no_failures_and_above_the_bound_there_is_no_result(ws: Workspace) -> None:
    step = baseline(ws, RUN, suite(ws, [f"q{n}" for n in range(39)] + ["an err"]))
    block = (step.result or {})["blocks"]["target"]
    assert block["errors"] == 1 and block["cases"] == 40
    with pytest.raises(StepFailed, match=r"3 of 40 cases of base have no answer \(bound 5%\).*told to.*resume"):
        baseline(ws, RUN, suite(ws, [f"q{n}" for n in range(37)] + ["an err", "2 err", "3 err"]), fresh=True)
    failed = ws.store.steps(RUN)[-1]
    before = len(requests_sent(ws))
    with pytest.raises(StepFailed, match="3 of 40"):
        resume_step(ws, failed.id, say_yes).done()
    assert texts(requests_sent(ws)[before:]) == ["2 err", "3 err", "an err"], (
        "a resumed step asks for what erred, and no more"
    )


def test_a_resumed_step_holds_no_answers_of_another_engine_and_loses_none_before_it_has_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, sampling = new_job(tmp_path), Sampling(max_tokens=8, repeats=2)
    checks = [(Assertion(type="contains", value="vllm"),), (Assertion(type="llm-rubric", value="It agrees"),)]
    kept = Suite(
        cases=tuple(
            Case(case_id=f"c{n}", suite="s", messages=({"role": "user", "content": f"{n}"},), assertions=checks[n % 2])
            for n in range(4)
        )
    )

    def attempt(engine: str, killed_after: int = 99) -> int:
        """How many answers the engine gave before it was killed."""
        given = 0

        def answer(questions: Sequence[Question], keep: Keep) -> None:
            nonlocal given
            for question in questions:
                if given == killed_after:
                    raise KeyboardInterrupt
                given += 1
                keep(question, ChatResponse(engine, id=question.id))

        with suppress(KeyboardInterrupt):
            run_arms(job, kept, [Arm("base", "m", {"engine": engine})], sampling, answer)
        return given

    def answers() -> Counter[str]:
        return Counter(row.output for row in job.store.results(job.step.id))

    assert attempt("vllm 1", 4) == 4
    assert attempt("vllm 2", 3) == 3 and "or other settings: 4; asking" in capsys.readouterr().err
    assert answers() == {"vllm 1": 1, "vllm 2": 3}, "what is not answered anew yet is still there"
    assert attempt("vllm 2") == 8 - 3, "exactly the others"
    assert answers() == {"vllm 2": 8} and "settings: 1;" in capsys.readouterr().err
    assert attempt("vllm 2") == 0 and "another engine" not in capsys.readouterr().err
    assert {row.passed for row in job.store.results(job.step.id)} == {True, None}, "half of them wait for a judge"


def test_a_full_disk_is_named_while_answers_arrive(tmp_path: Path) -> None:
    job = new_job(tmp_path)
    kept = load_named_suites([str(write_suite(tmp_path / "suite.yaml", 400))])
    with job.store.write() as conn:
        conn.execute(f"PRAGMA max_page_count = {conn.execute('PRAGMA page_count').fetchone()[0] + 4}")
    with stub(0.02) as port, pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        sampling = Sampling(max_tokens=8)
        run_arms(job, kept, [Arm("base", "stub", {})], sampling, server_answers(server_at(tmp_path, port), sampling, 4))


def test_cases_for_some_arms_are_asked_of_these_and_count_only_between_them(ws: Workspace) -> None:
    file = Path(suite(ws, ["a", "b", "c"], "providers: [base, prompted, adapter]\n"))
    text = file.read_text().replace('"vars": {"q": "b"}', '"providers": ["base"], "vars": {"q": "b"}')
    file.write_text(text.replace('"vars": {"q": "c"}', '"providers": ["prompted"], "vars": {"q": "c"}'))
    plan = price(ws, StepRequest("baseline", {"suites": (str(file),)}, RUN))
    assert plan.summary == "run 2 cases on the untouched base" and any("1 more wait" in step for step in plan.steps)
    assert sorted(r.case_id for r in ws.store.results(baseline(ws, RUN, str(file)).id)) == ["c-a", "c-b"]
    step = run_step(ws, StepRequest("evaluate", {"arm": "prompted", "system_prompt": "x"}, RUN), say_yes).done()
    by_arm = {arm: sorted(r.case_id for r in ws.store.results(step.id, arm)) for arm in ("base", "prompted")}
    assert by_arm == {"base": ["c-a", "c-b"], "prompted": ["c-a", "c-c"]}
    block = (step.result or {})["comparisons"][0]["blocks"]["target"]
    assert (block["cases"], block["errors"]) == (1, {"base": 0, "prompted": 0})
    found = compare_with_hops(ws.store, RUN, "base", "prompted").whole
    assert found.left_out == {"target": 2}, "what one of them was not asked is counted"
    console = Console(width=120)
    with console.capture() as captured:
        console.print(comparison_table(found))
        console.print(comparison_table(replace(found, left_out={"tools": 1})))
    assert "left out: 2 target cases were not asked of both" in captured.get()
    assert "left out: 1 tools case was not asked of both" in captured.get()
    file.write_text(
        file.read_text().replace("[base, prompted, adapter]", "[prompted]").replace('"providers": ["base"], ', "")
    )
    with pytest.raises(BadInput, match="ask nothing of the base"):
        price(ws, StepRequest("baseline", {"suites": (str(file),)}, RUN))


def test_the_plan_says_what_passes_without_a_message_being_read(ws: Workspace) -> None:
    path = ws.store.home / "unread.yaml"
    tests = "".join(f"- {{vars: {{q: m{n}}}, assert: [{{type: not-contains, value: x{n}}}]}}\n" for n in range(12))
    path.write_text(f"prompts: ['{{{{q}}}}']\ntests:\n{tests}")
    [note] = price(ws, StepRequest("baseline", {"suites": (str(path),)}, RUN)).notes
    assert "an empty answer passes 12 of 12 target cases" in note


def test_the_plan_says_what_so_many_cases_can_show_before_it_is_bought(ws: Workspace) -> None:
    steps = price(ws, StepRequest("baseline", {"suites": (suite(ws, [str(n) for n in range(20)]),)}, RUN)).steps
    assert "with 20 cases no gain under 30 points can be shown on the target" in steps
    steps = price(ws, StepRequest("baseline", {"suites": (suite(ws, [str(n) for n in range(60)]),)}, RUN)).steps
    assert "with 60 cases no gain under 10 points can be shown on the target" in steps
    assert any("leave a loss of up to" in step for step in price(ws, StepRequest("baseline", {}, RUN)).steps)
    assert requests_sent(ws) == []


def test_the_plan_counts_seed_rows_as_the_comparison_will(ws: Workspace) -> None:
    def told(rows: int, block: str) -> tuple[str, ...]:
        path = ws.store.home.parent / "rows.yaml"
        metadata = [{"block": block, "case_id": f"c{n}", "seed_row": n % rows} for n in range(20)]
        tests = [{"vars": {"q": str(n)}, "metadata": metadata[n]} for n in range(20)]
        path.write_text(json.dumps({"prompts": ["{{q}}"], "tests": tests}))
        return price(ws, StepRequest("baseline", {"suites": (str(path),)}, RUN)).steps

    few = "with 20 cases (4 independent) no gain can be shown; write at least 6 independent ones on the target"
    assert few in told(4, "target")
    assert "with 20 cases (10 independent) no gain under 30 points can be shown on the target" in told(10, "target")
    assert "with 20 cases no gain under 30 points can be shown on the target" in told(20, "target")
    alone, together = (next(step for step in told(rows, "general") if "points open" in step) for rows in (20, 4))
    assert "20 cases leave a loss of up to 11.9 points open" in alone
    assert "20 cases (4 independent) leave a loss of up to 40.3 points open" in together


def test_a_preamble_and_a_case_with_its_own_system_prompt_make_one_system_prompt() -> None:
    case = Case(case_id="c", suite="s", messages=({"role": "system", "content": "B"}, {"role": "user", "content": "q"}))
    arm = Arm("prompted", "m", {}, [{"role": "system", "content": "A"}])
    assert arm.messages(case) == [{"role": "system", "content": "A\n\nB"}, {"role": "user", "content": "q"}]
    assert arm.messages(case) == arm.messages(case), "asking twice asks the same"


def test_the_prompted_arm_is_told_what_the_behaviour_is_and_speaks_against_training_when_it_is_good_enough(
    ws: Workspace,
) -> None:
    file = suite(ws, [f"q{n}" for n in range(16)])
    baseline(ws, RUN, file)
    with pytest.raises(BadInput, match="set behaviour, or write a system_prompt"):
        price(ws, StepRequest("evaluate", {"arm": "prompted"}, RUN))
    before = len(requests_sent(ws))
    fields = {"arm": "prompted", "behaviour": "demo"}
    step = run_step(ws, StepRequest("evaluate", fields, RUN), say_yes).done()
    result, bodies = step.result or {}, requests_sent(ws)[before:]
    assert len(bodies) == 2 * 16 and result["prompt"]["name"] == "instructions, held to the JSON schema"
    said = [b["messages"] for b in bodies if b["messages"][-1]["content"] == "q0"]
    assert [len(messages) for messages in said] == [1, 2] and "strict JSON" in said[1][0]["content"]
    assert "short of the goal of 80%" in result["advice"]
    assert result["proof"]["sha256_before"] == result["proof"]["sha256_after"]
    assert result["comparisons"][0]["comparable"] and compare_with_hops(ws.store, RUN, "base", "prompted").advice
    good = run_step(ws, StepRequest("evaluate", {**fields, "goal_rate": 0.2}, RUN), say_yes).done().result or {}
    assert "advised against training" in good["advice"] and good["taken_over"] == 32


def test_a_prompt_with_a_schema_is_held_to_it_on_the_behaviours_own_messages_alone() -> None:
    prompt = prompt_of(load_behaviour("demo"))
    arm = Arm("prompted", "m", {}, list(prompt.preamble), prompt.schema)
    cases = {case.block: case for case in load_named_suites(("demo",)).cases}
    forms = {
        block: Question(arm, case).request(Sampling(8)).extra.get("response_format") for block, case in cases.items()
    }
    assert {block for block, form in forms.items() if form} == {"target", "adversarial"}
    assert forms["target"]["json_schema"]["schema"]["required"] == ["category", "urgency", "order", "summary"]


def test_a_thinned_suite_goes_without_its_adversarial_block() -> None:
    whole = load_named_suites(("demo",))
    kinds = Counter(case.metadata["kind"] for case in whole.block("adversarial"))
    assert kinds == dict.fromkeys(("paraphrase", "language", "injected instruction", "long context"), 3)
    assert {case.block for case in subsample(whole, 24).cases} == {"target", "general", "over-trigger"}
    assert len(subsample(Suite(cases=whole.block("adversarial")), 5).cases) == 5


def test_a_base_that_vllm_takes_no_adapters_for_is_measured_without(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_NO_LORA", "start")
    assert (baseline(ws, RUN, suite(ws, ["a"])).result or {})["key"]["lora"] == "not allowed"


@pytest.mark.parametrize(
    "asks, named",
    [
        ({"sampling": {"temperature": 0.5}}, "temperature=0.5"),
        ({"sampling": {"stop": ["END"]}}, r"stop=\['END'\]"),
        ({"sampling": {"response_format": {"type": "json_object"}}}, "response_format="),
        ({"sampling": {"repetition_penalty": 1.2}}, "repetition_penalty=1.2"),
        ({"repeat": 3}, "repeats=3"),
        ({"tools": ({"type": "function"},), "tool_choice": "required"}, "tool_choice='required'"),
    ],
)
def test_without_vllm_what_a_case_asks_beyond_greedy_answers_is_refused_by_name(
    asks: dict[str, Any], named: str
) -> None:
    plain: dict[str, Any] = {"case_id": "c0", "suite": "s", "messages": ({"role": "user", "content": "q"},)}
    idle = Case(**plain, sampling={"temperature": 0, "seed": 4, "max_tokens": 9, "top_p": 0.5}, tool_choice="required")
    refuse_unanswerable(Suite(cases=(idle,)), Sampling(8))
    with pytest.raises(StepFailed, match=f"case c1 asks for .*{named}"):
        refuse_unanswerable(Suite(cases=(idle, Case(**{**plain, "case_id": "c1", **asks}))), Sampling(8))
    with pytest.raises(StepFailed, match=r"temperature=0\.7, repeats=2"):
        refuse_unanswerable(Suite(cases=(Case(**plain),)), Sampling(8, temperature=0.7, repeats=2))


@pytest.mark.lab
def test_where_vllm_refuses_the_adapter_one_process_answers_with_it_on_and_off(
    ws: Workspace, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_NO_LORA", "load")
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(tiny_llama)}, run), say_yes).done()
    step = baseline(ws, run, suite(ws, ["a", "b", "c"]))
    base, adapter = ws.store.artifacts(run, "base")[0], add_adapter(ws, run, step.id, tiny_llama)
    before = len(requests_sent(ws))
    ended = run_step(ws, StepRequest("evaluate", {"arm": "adapter", "max_tokens": 8}, run), say_yes).done()
    result = ended.result or {}
    assert "does not support LoRA" in result["proof"]["vllm_refused"] and len(requests_sent(ws)) == before
    assert result["keys"]["base"]["engine"].startswith("transformers")
    assert result["comparisons"][0]["comparable"] and result["keys"]["adapter"]["adapter"] == adapter.sha256
    assert result["proof"]["sha256_before"]["base"] == base.sha256 == result["proof"]["sha256_after"]["base"]
    outputs = {arm: [r.output for r in ws.store.results(ended.id, arm)] for arm in ("base", "adapter")}
    assert outputs["base"] == [alone(base.path, q) for q in ("a", "b", "c")], "off means the untouched base"
    assert outputs["adapter"] != outputs["base"]


@pytest.mark.lab
@pytest.mark.parametrize("fault, says", [("", ""), ("dead", "dropped"), ("base", "afterwards")])
def test_what_the_proof_finds_decides_who_answers(
    ws: Workspace, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    """A stand-in for the server; where it is at fault, one transformers process answers for both arms, at 4 bits."""
    monkeypatch.setenv("STUB_FAULT", fault)
    run = ws.store.new_run("test")
    asked = {"model": str(tiny_llama), "measuring": "4" if fault else "16"}
    run_step(ws, StepRequest("base", asked, run), say_yes).done()
    step = baseline(ws, run, suite(ws, ["a", "b", "c"]))
    add_adapter(ws, run, step.id, tiny_llama)
    fields = {"arm": "adapter", "max_tokens": 8}
    result = run_step(ws, StepRequest("evaluate", fields, run), say_yes).done().result or {}
    proof = result["proof"]["liveness"]
    assert set(proof["kinds"]) == {"self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"}
    key = result["keys"]["base"]
    assert key["engine"].startswith("transformers" if fault else "vllm")
    assert key["precision"].endswith("unpacked to bfloat16") == ("4 bits" in key["precision"]) == bool(fault)
    assert (says in result["proof"].get("vllm_refused", "").replace("after adapters have", "afterwards")) and (
        bool(fault) == ("vllm_refused" in result["proof"])
    )
    assert result["comparisons"][0]["comparable"]


def add_adapter(ws: Workspace, run: str, step: str, model_dir: Path) -> Artifact:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    folder = ws.store.home / "adapter"
    get_peft_model(model, config).save_pretrained(folder)
    manifest = seal(folder, kind="adapter", step=step)
    made = Artifact("", run, step, "adapter", folder, manifest["sha256"], manifest["bytes"], (), {"lora_rank": 4})
    return ws.store.add_artifact(made)


def alone(model_dir: Path, question: str) -> str:
    """The base's greedy answer, one question at a time, no adapter anywhere near."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        out = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return str(tokenizer.decode(out, skip_special_tokens=True))


def test_a_suite_named_from_where_the_user_stands_is_found_by_the_worker_too(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(suite(ws, ["a"]))
    monkeypatch.chdir(file.parent)
    step = baseline(ws, RUN, file.name)
    assert [r.case_id for r in ws.store.results(step.id)] == ["c-a"]
    (file.parent / "tools").mkdir()
    plan = price(ws, StepRequest("baseline", {"suites": ("general", "demo", file.name)}, RUN))
    assert plan.request["suites"] == ["general", "demo", str(file)]
