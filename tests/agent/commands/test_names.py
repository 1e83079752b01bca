"""Names as people know them, on real command lines: said back once, the same in a file, a plan and a flag."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.hub_stand_in import COMMIT, MODEL, Hub, hub_of
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.parser import parse
from tunesmith.agent.commands.run_steps import stage_request
from tunesmith.agent.commands.same_words import SAME_AS
from tunesmith.agent.repl.command_table import COMMANDS
from tunesmith.memory.errors import ApprovalPending, BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.models.bundled import SMOLLM2
from tunesmith.tools.pipeline import run_step as way
from tunesmith.tools.pipeline.plan_file import load_pipeline, same_plan
from tunesmith.tools.pipeline.workspace import Decision, Edited, StepRequest, Workspace


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_of(make_tiny_model(tmp_path / "on-the-hub", weight_bytes=4_000_000)) as made:
        yield made


@pytest.fixture
def finished(tmp_path: Path) -> Store:
    """A finished run, of which a training can be priced: the records name a base's config and count rows."""
    store = finished_run(tmp_path / "home")[0]
    known: dict[str, dict[str, object]] = {
        "base": {"name": "SmolLM2-135M-Instruct", "parameters": 134_515_008, "config": dict(SMOLLM2.config)}
    }
    known["dataset"] = {"train_rows": 500, "tokens_per_row": 60}
    with store.write() as conn:
        for kind, meta in known.items():
            conn.execute("UPDATE artifacts SET meta = ? WHERE kind = ?", (json.dumps(meta), kind))
    return store


# Other programs' names


@pytest.mark.heavy
def test_names_are_said_back_once_and_a_file_gives_way_to_flags(
    tunesmith: Tunesmith, finished: Store, tmp_path: Path
) -> None:
    (tmp_path / "r.json").write_text('{"lora_r": 4, "num_epochs": 2}')
    done = tunesmith("train", "--request", str(tmp_path / "r.json"), "--lora-rank", "8", "lr=0.001", "--json")
    assert done.returncode == 3, done.stderr
    request = json.loads(done.stdout)["plan"]["request"]
    assert (request["lora_rank"], request["epochs"], request["learning_rate"]) == (8, 2.0, 0.001)
    said = [line for line in done.stderr.splitlines() if line.endswith(" here")]
    assert said == [
        f"tunesmith: {name} here" for name in ("lora_r is lora_rank", "num_epochs is epochs", "lr is learning_rate")
    ]


def test_a_plan_takes_them_too(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "p.yaml").write_text(
        "name: p\nsteps:\n  - {stage: base, base_model: bundled}\n  - {stage: baseline, max_new_tokens: 32}\n"
        "  - {stage: baseline, max_new_tokens: 64}\n"
    )
    plan = load_pipeline(tmp_path / "p.yaml", said.append)
    assert [spec.fields for spec in plan.steps] == [{"model": "bundled"}, {"max_tokens": 32}, {"max_tokens": 64}]
    assert said == ["base_model is model here", "max_new_tokens is max_tokens here"]


def test_an_answer_to_a_price_takes_them_and_is_recorded_under_our_name(finished: Store) -> None:
    told: list[str] = []
    ws = Workspace(finished, None, lambda event, **data: told.append(str(data.get("text", ""))))
    given = [Edited({"lora_r": "4"}), Decision(False, "test", "no")]

    def approver(plan: object, step: str) -> Decision:
        answer = given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    way.run_step(ws, StepRequest("train", {}, "r1"), approver)
    assert finished.priced_steps()[-1].request["lora_rank"] == 4
    assert told.count("lora_r is lora_rank here") == 1
    reasons = [row["reason"] for row in finished.read("SELECT reason FROM approvals")]
    assert "edited: lora_rank=4" in reasons


# auto


def test_a_plan_of_before_there_was_auto_is_the_one_that_its_yes_is_for(finished: Store) -> None:
    """Its request holds 0 where today's holds auto: it waits on, and no other plan takes its place."""
    ws = Workspace(finished, None, lambda event, **data: None)
    plan = way.price(ws, StepRequest("train", {}, "r1"))
    assert plan.request["max_steps"] == "auto" and plan.request["lora_rank"] == 16
    old = {name: 0 if value == "auto" else value for name, value in plan.request.items()}
    step = way.propose(ws, plan.model_copy(update={"request": old}))
    waiting = finished.step(step)
    assert waiting.request["max_steps"] == 0 and waiting.plan_hash != plan.hash
    assert way.current_plan(waiting).hash == plan.hash

    def nobody(plan: object, step: str) -> Decision:
        raise ApprovalPending("nobody is here")

    with pytest.raises(ApprovalPending):
        way.run_pending(ws, waiting, nobody)
    assert finished.priced_steps()[-1].id == step, "no other step was proposed"


def test_a_stored_plan_is_known_again_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\nsteps: [{stage: base, model: org/x}, {stage: baseline, context_tokens: auto}]"
    )
    written = load_pipeline(tmp_path / "p.yaml")
    base, baseline = written.steps
    pinned = base.model_copy(update={"fields": {**base.fields, "revision": COMMIT}})
    older = baseline.model_copy(update={"fields": {"context_tokens": 0}})
    assert same_plan(written, written.model_copy(update={"steps": (pinned, older)}))
    other = base.model_copy(update={"fields": {"model": "org/y", "revision": COMMIT}})
    assert not same_plan(written, written.model_copy(update={"steps": (other, older)}))
    assert not same_plan(written.model_copy(update={"steps": (pinned, baseline)}), written)


# Hub models without a commit


@pytest.mark.heavy
def test_a_hub_model_is_pinned_at_its_newest_commit_wherever_it_is_named(
    tunesmith: Tunesmith, hub: Hub, tmp_path: Path
) -> None:
    said = f"{MODEL} is at commit {COMMIT}, the newest on the hub"
    done = tunesmith("base", "--model", MODEL, "--json", **hub.env)
    assert done.returncode == 3 and said in done.stderr
    assert json.loads(done.stdout)["plan"]["request"]["revision"] == COMMIT
    assert said in tunesmith("pull", MODEL, **hub.env).stderr
    assert said in tunesmith("base", "--model", f"https://huggingface.co/{MODEL}", **hub.env).stderr
    one = tunesmith("base", "--model", f"https://huggingface.co/{MODEL}/tree/dev", **hub.env)
    assert one.returncode == 2 and f"give {MODEL}, and dev as the revision" in one.stderr
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps: [{{stage: base, model: {MODEL}}}]")
    done = tunesmith("run", str(tmp_path / "p.yaml"), **hub.env)
    assert done.returncode == 3 and said in done.stderr
    store = Store(tunesmith.home)
    run = store.runs()[0]
    assert run.plan["steps"][0]["fields"] == {"model": MODEL, "revision": COMMIT}
    again = tunesmith("run", str(tmp_path / "p.yaml"), "--resume", run.id, **hub.env)
    assert again.returncode == 3 and "is not the plan of" not in again.stderr


@pytest.mark.heavy
def test_without_the_hub_one_sentence_says_what_to_do(tunesmith: Tunesmith, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps: [{{stage: base, model: {MODEL}}}]")
    for words in (("base", "--model", MODEL), ("run", str(tmp_path / "p.yaml"))):
        done = tunesmith(*words, HF_HUB_OFFLINE="1")
        assert done.returncode == 2 and "--revision, the 40 hex digits" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1 or words[0] == "run"
    assert not Store(tunesmith.home).runs()


def test_another_model_at_the_price_does_not_keep_the_old_ones_commit(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = way.catalog.BY_NAME["base"].load()
    before = {"model": "org/other", "revision": "f" * 40, "role": "base"}
    assert declared.carried_over(before, {"model": MODEL}) == {"model": "org/other", "role": "base"}
    assert declared.carried_over(before, {"role": "teacher"}) == before


# run, resume, show, serve


@pytest.mark.heavy
def test_one_table_drives_the_shell_and_the_conversation(tunesmith: Tunesmith) -> None:
    told = tunesmith("--help").stdout
    for word in SAME_AS:
        assert re.search(rf"^    {word} ", told, re.MULTILINE) and word in COMMANDS
    assert parse(["--json", "resume", "r3", "--yes"])[0].resume == "r3"
    assert parse(["-p", "resume"])[0].prompt == "resume"
    assert parse(["resume", "--yes"])[0].resume is True and parse(["run", "--resume", ""])[0].resume == ""
    assert parse(["show", "r3"])[0].run == "r3"


@pytest.mark.heavy
def test_its_help_has_every_option_of_the_command_that_it_stands_for(tunesmith: Tunesmith) -> None:
    for word, same in SAME_AS.items():
        command = [part for part in same.words if not part.startswith("--")]
        told = tunesmith(word, "--help").stdout
        assert told.startswith(f"usage: tunesmith {word} [-h]")
        options = set(re.findall(r"^  (--[\w-]+)", tunesmith(*command, "--help").stdout, re.MULTILINE))
        assert options - set(same.words) == set(re.findall(r"^  (--[\w-]+)", told, re.MULTILINE)), word


@pytest.mark.heavy
def test_resume_and_show_take_the_newest_run(tunesmith: Tunesmith, finished: Store) -> None:
    assert tunesmith.json("show", "--json") == tunesmith.json("runs", "show", "r1", "--json")
    assert tunesmith("resume").stderr == tunesmith("run", "--resume", "r1").stderr.replace(
        "tunesmith: ", "tunesmith: r1, the newest run\ntunesmith: ", 1
    )


@pytest.mark.heavy
def test_serve_is_a_deployment_of_what_is_named(tunesmith: Tunesmith, finished: Store) -> None:
    def asked(*argv: str) -> StepRequest:
        args, rest = parse(argv)
        assert args.command == "deploy", "the same stage, with its price and its gate"
        return stage_request(args, rest, finished)

    assert asked("serve", "merged", "--port", "8099", "--yes") == StepRequest("deploy", {"arm": "merged", "port": 8099})
    name = finished.run("r1").name.upper()
    for word in ("r1", name, SMOLLM2.name):
        assert asked("serve", word) == StepRequest("deploy", {"arm": "quantized"}, "r1"), word
    assert asked("serve", "r1", "--arm", "merged") == StepRequest("deploy", {"arm": "merged"}, "r1")
    done = tunesmith("serve", "quantised")
    assert done.returncode == 2 and "did you mean 'quantized'" in done.stderr
    nothing = tunesmith("serve", "org/unknown")
    assert nothing.returncode == 2 and "`tunesmith serve r1`" in nothing.stderr


def test_serve_alone_says_what_could_be_served(tunesmith: Tunesmith, finished: Store) -> None:
    assert tunesmith.json("serve", "--json")["servers"] == []
    assert "`tunesmith serve r1`" in tunesmith("serve").stdout
    assert tunesmith.json("serve", "status", "--json") == {"servers": []}


def test_a_wrong_model_opens_no_run(tunesmith: Tunesmith) -> None:
    with pytest.raises(BadInput, match="neither a folder"):
        StepRequest.given("base", {"model_name": "no such"})
