"""The driver's typed tools: every stage of the catalogue, the plan of a whole fine-tune, and the history.

Schemas are flat and every argument is required; `null` stands for "as usual". No tool takes a path, a command or SQL.
An expensive stage raises ApprovalRequired with its priced plan; it runs only in the second call, after a person's yes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_ai import ApprovalRequired, FunctionToolset, RunContext, Tool
from pydantic_ai.exceptions import ToolFailed

from tunesmith.agent import carry, render
from tunesmith.agent.driver import describing
from tunesmith.agent.driver.answers import Topic, answer
from tunesmith.agent.driver.desk import Desk
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import DONE, RUNNING, Step
from tunesmith.tools import arc, catalog
from tunesmith.tools.arc import ArcPlan, StepSpec
from tunesmith.tools.described import missing
from tunesmith.tools.described_folder import plan_for
from tunesmith.tools.stage import Plan

_RESULT_CHARACTERS = 1500
_STAGES = tuple(entry.name for entry in catalog.STAGES)
_FIELDS = tuple(dict.fromkeys(name for entry in catalog.STAGES for name in entry.asks))


class _Args(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LookUp(_Args):
    """Look something up in the history: runs, results, settings and their reasons, what is served, jobs, rows."""

    topic: Topic = Field(
        description="runs: list all runs. run: how one run went, its results. compare_runs: two runs side by side. "
        "setting: the value of one setting and why. served: what is deployed now and which run made it. "
        "jobs: what is running. rows: show training rows on the screen."
    )
    run: str | None = Field(
        description="Which run, as the user says it: r3, yesterday, last week. null: the current one."
    )
    other_run: Optional[str] = Field(description="For compare_runs: the second run. Else null.")  # noqa: UP045
    setting: Optional[str] = Field(description="For setting: its name, such as rank. Else null.")  # noqa: UP045


class PlanFineTune(_Args):
    """Propose the whole plan for teaching the model a behaviour; it is shown with its price and nothing starts."""

    goal: str = Field(description="What the model shall do, in the user's words.")
    pace: Literal["fast", "full"] = Field(description="fast: a quick try in minutes. full: all rows and cases.")
    quantize: bool = Field(description="Whether to quantize the result; true unless the user says not to.")


class EditPlan(_Args):
    """Change the proposed plan: set a field of a step, or remove a step."""

    step: Literal[_STAGES] = Field(description="The stage to change.")  # type: ignore[valid-type]
    field: Optional[Literal[_FIELDS]] = Field(  # type: ignore[valid-type]  # noqa: UP045
        description="The field to set, such as lora_rank; null to remove the step."
    )
    value: Optional[str] = Field(description="Its new value; null to remove the step.")  # noqa: UP045


class DescribeBehaviour(_Args):
    """Go on with the description of a new behaviour: what the user just said answers the question that was asked."""

    act: Literal["answer", "drop"] = Field(
        description="answer: the user's words answer it. drop: the user does not want the new behaviour any more."
    )


class StartPlan(_Args):
    """Start the proposed plan, after the user agreed to it; each expensive step still asks the user."""

    confirm: Literal["start", "drop"] = Field(description="start: carry it out. drop: forget the plan.")


def toolset() -> FunctionToolset[Desk]:
    """All tools; which of them a request shows is decided per request."""
    tools = [
        _tool("look_up", LookUp, _look_up),
        _tool("plan_fine_tune", PlanFineTune, _plan_fine_tune),
        _tool("describe_behaviour", DescribeBehaviour, _describe_behaviour),
        _tool("edit_plan", EditPlan, _edit_plan),
        _tool("start_plan", StartPlan, _start_plan),
        *(_stage_tool(entry) for entry in catalog.STAGES),
    ]
    return FunctionToolset(tools, sequential=True)


def _tool(name: str, args: type[BaseModel], run: Callable[[Desk, Any, RunContext[Desk]], Any]) -> Tool[Desk]:
    def call(ctx: Any, args: Any) -> str:
        return _capped(ctx.deps, run(ctx.deps, args, ctx))

    call.__annotations__ = {"ctx": RunContext[Desk], "args": args, "return": str}
    description = (args.__doc__ or "").strip()
    return Tool(call, takes_ctx=True, name=name, description=description, strict=True, sequential=True)


def _capped(desk: Desk, result: Any) -> str:
    text = json.dumps(result, ensure_ascii=False, default=str)
    desk.note(text)
    return text if len(text) <= _RESULT_CHARACTERS else text[:_RESULT_CHARACTERS] + " … (the rest is on the screen)"


# History


def _look_up(desk: Desk, args: LookUp, ctx: RunContext[Desk]) -> Any:
    told = answer(
        desk.store,
        args.topic,
        run=args.run or "",
        other_run=args.other_run or "",
        setting=args.setting or "",
        current=desk.current_run(),
    )
    desk.show(told.shown)
    return told.facts


# The plan of a whole fine-tune


_TICKETS = re.compile(r"ticket|triage|support|help ?desk|customer|complaint", re.IGNORECASE)


def _plan_fine_tune(desk: Desk, args: PlanFineTune, ctx: RunContext[Desk]) -> Any:
    home = desk.store.home
    if folder := describing.described_before(home, f"{args.goal} {desk.prompt}"):
        plan, behaviour = plan_for(folder, args.pace), f"{folder.name}, described earlier"
    elif _TICKETS.search(args.goal) or _TICKETS.search(desk.prompt):
        plan = carry.demo_plan(fast=args.pace == "fast")
        behaviour = "the bundled ticket-triage behaviour (support ticket to one line of strict JSON)"
    else:
        interview = describing.begin(home, args.goal, args.pace, args.quantize)
        return _ask_on(desk, f"That is a new behaviour, so I need to know it exactly. {interview.question}")
    _draft(desk, plan, args.goal, args.quantize)
    if not desk.agreed_before:
        _say(desk, "The plan is on your screen, with the price of every step. Start it, or change something?")
    return {"behaviour": behaviour, **_show_draft(desk)}


def _draft(desk: Desk, plan: ArcPlan, goal: str, quantize: bool) -> None:
    steps = [spec for spec in plan.steps if quantize or not _about_quantized(spec)]
    if not quantize:
        steps = [_deploy_adapter(spec) for spec in steps]
    desk.draft = plan.model_copy(update={"goal": goal, "steps": tuple(steps)})


def _say(desk: Desk, words: str) -> None:
    """Have these words said next, where a small model would only say them worse."""
    desk.note(words)
    desk.say_next = words


def _ask_on(desk: Desk, question: str) -> dict[str, str]:
    """Have the user asked in exactly these words."""
    _say(desk, question)
    return {"ask_the_user": question}


def _describe_behaviour(desk: Desk, args: DescribeBehaviour, ctx: RunContext[Desk]) -> Any:
    home = desk.store.home
    interview = describing.open_interview(home)
    if interview is None:
        raise BadInput("no behaviour is being described; call plan_fine_tune first")
    if args.act == "drop":
        describing.drop(home)
        return {"dropped": interview.goal, "note": "nothing was written or started"}
    try:
        interview = describing.take(home, interview, desk.prompt)
        if missing(interview.draft):
            return _ask_on(desk, interview.question)
        plan, words = describing.plan_of(desk, interview)
    except BadInput as error:
        return _ask_on(desk, str(error))
    _draft(desk, plan, interview.goal, interview.quantize)
    return {**_show_draft(desk), **_ask_on(desk, words)}


def _about_quantized(spec: StepSpec) -> bool:
    return spec.stage == "quantize" or (spec.stage == "evaluate" and spec.fields.get("arm") == "quantized")


def _deploy_adapter(spec: StepSpec) -> StepSpec:
    return spec.model_copy(update={"fields": {**spec.fields, "arm": "adapter"}}) if spec.stage == "deploy" else spec


def _show_draft(desk: Desk) -> dict[str, Any]:
    from tunesmith.tools.forecast import forecast

    assert desk.draft is not None
    prices = forecast(desk.ws, desk.draft)
    desk.show(render.forecast_table(desk.draft.name, prices))
    seconds = sum(price.estimate.seconds for price in prices if price.estimate)
    desk.ws.emit(
        "plan.shown",
        plan={"name": desk.draft.name, "steps": [spec.stage for spec in desk.draft.steps]},
        estimated_seconds=seconds,
        stage="",
    )
    return {
        "plan": [spec.stage for spec in desk.draft.steps],
        "estimated_in_all": render.duration(seconds),
        "note": "the user agreed to everything beforehand: call start_plan now"
        if desk.agreed_before
        else "the table with every step's price is on the user's screen; nothing has started. "
        "Ask whether to start it or to change something.",
    }


def _edit_plan(desk: Desk, args: EditPlan, ctx: RunContext[Desk]) -> Any:
    draft = _drafted(desk)
    step = args.step
    if args.field is None:
        steps = tuple(spec for spec in draft.steps if spec.stage != step)
        if step == "quantize":
            steps = tuple(_deploy_adapter(spec) for spec in steps if not _about_quantized(spec))
    else:
        step = _stage_of(args.field, step)
        steps = _with_field(desk, draft, step, {args.field: args.value})
    changed = draft.model_copy(update={"steps": steps})
    arc.check_arc(changed, have=())
    desk.draft = changed
    _say(desk, "The plan is changed; its new prices are on your screen. Start it, or change something more?")
    return {"changed": {step: args.model_dump(exclude={"step"})}, **_show_draft(desk)}


def _stage_of(field: str, named: str) -> str:
    """The stage that has a field: the one named, else the only one that has it. Raises BadInput."""
    asks = catalog.BY_NAME[named].asks
    owners = [entry.name for entry in catalog.STAGES if field in entry.asks]
    if field not in asks and len(owners) != 1:
        raise BadInput(f"{named} has no field {field!r} to set here; it has {', '.join(asks) or 'none'}")
    return named if field in asks else owners[0]


def _with_field(desk: Desk, draft: ArcPlan, step: str, fields: dict[str, Any]) -> tuple[StepSpec, ...]:
    _said_by_the_user(desk, fields)
    if next(iter(fields.values())) is None:
        raise BadInput(f"{step}.{next(iter(fields))}: to what? Ask the user for the value")
    if step not in (spec.stage for spec in draft.steps):
        raise BadInput(f"the plan has no step {step}; it has {', '.join(s.stage for s in draft.steps)}")
    return tuple(
        spec.model_copy(update={"fields": {**spec.fields, **fields}}) if spec.stage == step else spec
        for spec in draft.steps
    )


def _drafted(desk: Desk) -> ArcPlan:
    if desk.draft is None:
        raise BadInput("no plan is proposed; call plan_fine_tune first")
    return desk.draft


def _start_plan(desk: Desk, args: StartPlan, ctx: RunContext[Desk]) -> Any:
    draft = _drafted(desk)
    desk.draft = None
    if args.confirm == "drop":
        _say(desk, "The plan is dropped; nothing was started.")
        return {"dropped": draft.name, "note": "nothing was started"}
    arc.check_arc(draft, have=())
    if not desk.agreed_before:
        _say(desk, "It begins. You are asked before each expensive step, and we can go on talking meanwhile.")
    return {"started": draft.name, "steps": [spec.stage for spec in draft.steps], "note": desk.start_arc(draft)}


# Stages


def _stage_tool(entry: catalog.Entry) -> Tool[Desk]:
    model = entry.load().request
    fields: dict[str, Any] = {}
    for name in entry.asks:
        info = model.model_fields[name]
        usual = info.get_default(call_default_factory=True)
        text = f"{info.description or ''} null: as usual ({usual}).".strip()
        fields[name] = (Optional[info.annotation], Field(description=text))  # noqa: UP045
    fields["run"] = (Optional[str], Field(description="Run to work in, such as r3. null: the current one."))  # noqa: UP045
    args = create_model(entry.name, __base__=_Args, __doc__=f"{entry.summary[0].upper()}{entry.summary[1:]}.", **fields)

    def run(desk: Desk, given: BaseModel, ctx: RunContext[Desk]) -> Any:
        return _run_stage(desk, entry, given.model_dump(exclude_none=True), ctx)

    return _tool(entry.name, args, run)


def _run_stage(desk: Desk, entry: catalog.Entry, given: dict[str, Any], ctx: RunContext[Desk]) -> Any:
    if not entry.expensive:
        run = carry.open_run(desk.ws, entry.name, _in_run(desk, given))
        ended = carry.in_run(desk.ws, run, entry.name, given, desk.approver)
        desk.show(render.result_table(ended))
        return step_facts(ended)
    _said_by_the_user(desk, given)
    if ctx.tool_call_approved:
        return _start(desk, desk.agreed[str(ctx.tool_call_id)])
    run = carry.open_run(desk.ws, entry.name, _in_run(desk, given))
    running = [step for step in desk.store.steps(run, status=RUNNING) if step.stage == entry.name]
    if running:
        raise BadInput(f"{entry.name} ({running[0].id}) runs already; wait for it to end")
    plan = arc.price(desk.ws, run, entry.name, given)
    step = arc.propose(desk.ws, run, plan)
    raise ApprovalRequired(metadata={"step": step, "plan": plan.model_dump(mode="json")})


_KNOWN_MODELS = ("bundled", "bundled-driver")


def _said_by_the_user(desk: Desk, given: Mapping[str, Any]) -> None:
    """No free path among the tools: what names a place must stand in the user's own words."""
    model = given.get("model")
    said = {word.strip(".,;:!?'\"()") for word in desk.prompt.split()}
    if model is not None and model not in _KNOWN_MODELS and str(model) not in said:
        raise BadInput(f"model {model!r}: the user did not name it; ask which model, or use 'bundled'")


def _in_run(desk: Desk, given: dict[str, Any]) -> dict[str, Any]:
    """The fields with the run that is talked about; taken from there again by whoever opens it."""
    if "run" not in given and desk.run:
        given["run"] = desk.run
    return given


def settle(desk: Desk, call_id: str, step: str, plan: Plan) -> str:
    """Ask about one call's plan; "" for a yes, else the no with its reason, for the driver."""
    agreed = arc.agree(desk.ws, step, plan, desk.approver)
    if agreed is None:
        said = desk.store.read("SELECT reason FROM approvals WHERE stage = ? ORDER BY rowid DESC LIMIT 1", plan.stage)
        reason = f": {said[0]['reason']}" if said and said[0]["reason"] else ""
        return f"the user said no{reason}; nothing was started"
    desk.agreed[call_id] = agreed[0]
    return ""


def _start(desk: Desk, step: str) -> dict[str, Any]:
    started = arc.start(desk.ws, step)
    carry.stand(desk.store, started.run, RUNNING)
    ran = {name: value for name, value in started.request.items() if name != "run"}
    if desk.follow:
        ended = arc.watch(desk.ws, step)
        carry.stand(desk.store, ended.run, DONE)
        return {**step_facts(ended), "ran_with": ran}
    _say(desk, f"{started.stage} runs in the background; you are told when it ends, and we can go on talking.")
    return {
        "started": started.stage,
        "step": started.id,
        "run": started.run,
        "estimated": render.duration(started.estimated_seconds),
        "ran_with": ran,
        "note": "it runs in the background; the user is told when it ends",
    }


_QUIET = (
    "path",
    "sha256",
    "artifact",
    "keys",
    "key",
    "comparisons",
    "suite_sha256",
    "key_file",
    "first_answer",
    "fits",
)


def step_facts(step: Step) -> dict[str, Any]:
    """What a finished step came to, for the driver: its numbers, none of the texts it worked on."""
    result = {name: value for name, value in (step.result or {}).items() if name not in _QUIET}
    blocks = result.pop("blocks", None)
    if isinstance(blocks, Mapping):
        result["passed"] = {name: f"{block['passed']} of {block['cases']}" for name, block in blocks.items()}
    verdicts = [render.hop_line(compared).plain for compared in (step.result or {}).get("comparisons", [])]
    if verdicts:
        result["verdicts"] = verdicts
    return {"stage": step.stage, "step": step.id, "run": step.run, "took": render.duration(step.seconds)} | _short(
        result
    )


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: render.size(value)
        if name.endswith("bytes") and isinstance(value, int)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for name, value in values.items()
        if not (isinstance(value, str) and len(value) > 200) and not (isinstance(value, Sequence) and len(value) > 12)
    }


def failed(error: Exception) -> ToolFailed:
    """An error as the driver is told it: what happened and what to try, without a traceback."""
    text = str(error) if isinstance(error, TunesmithError) else f"unexpected {type(error).__name__}: {error}"
    return ToolFailed(" ".join(text.split())[:600])
