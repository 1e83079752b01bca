"""`tunesmith mcp`: the typed tools for another agent, over stdio.

What costs something is asked of the person by this server, never by the model: `start` has no argument for a yes, the
client shows the price in a form, and where it cannot show one the answer names the command to type. No row, no case, no
answer and no key reaches the model; what it may read is what the driver may.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import wraps
from typing import Annotated, Literal, ParamSpec, TypeVar, Union

from mcp.server.elicitation import AcceptedElicitation, DeclinedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from tunesmith.agent.commands.places import may_name_a_place, places
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.startup import unexpected
from tunesmith.agent.driver.told import Described
from tunesmith.agent.mcp_forms import Agreed, Allowed, NotNeeded, Shown, Unasked, leave_to_look, price_to_agree_to
from tunesmith.agent.queries.answer import Context as Records
from tunesmith.agent.queries.registry import REQUESTS, ask
from tunesmith.agent.version import VERSION
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.json_values import picked
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.records import PLANNED, RUNNING, Run, Step
from tunesmith.memory.store import Store
from tunesmith.memory.views import VIEWS
from tunesmith.tools.core.field_names import our_names
from tunesmith.tools.core.format import one_line
from tunesmith.tools.pipeline import catalog, launcher
from tunesmith.tools.pipeline.plan_edits import Changes
from tunesmith.tools.pipeline.run_step import current_plan, propose_step, run_pending
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

MOST_WAIT_S = 50.0
"""Clients give a call up after about 60 s."""
_LOOK_EVERY_S = 0.25
"""As often as a client could show it; a look is a read of the store."""
_OF_A_SERVER = ("server", "role", "url", "model", "healthy", "artifact", "run")
"""What is shown of a server: where its key lies is not."""
_OF_A_STEP = (
    *("run", "stage", "arm", "status", "done", "total"),
    *("seconds", "estimated_seconds", "peak_rss_bytes", "plan_hash"),
)
_ABOUT = """tunesmith fine-tunes open-weight language models on this machine, step by step.
Call `status` first. `plan` prices one step and starts nothing; `start` has the person agree to that price, and only
the person can; `get_step` follows it. Every figure you tell should come from these tools. You see no rows, no test
cases and no answers: for those name the command, as `tunesmith rows review`, `tunesmith report`, `tunesmith ask`."""

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_ASKS_THE_HUB = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True)
_PRICES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True)
_STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True)
_STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

Json = dict[str, object]
P = ParamSpec("P")
T = TypeVar("T")
_FOR_THE_SCREEN = ("case", "row", "described", "trial", "served")
# Nor is put what names anything but records: it may look at a folder or ask the hub.
_ASKED = tuple(
    request
    for kind, request in REQUESTS.items()
    if kind not in _FOR_THE_SCREEN and not any(map(may_name_a_place, request.model_fields.values()))
)
# Made of the registry, which mypy does not run; of a tuple, which `|` does not take.
Question = Annotated[Union[_ASKED], Field(discriminator="kind")]  # type: ignore[valid-type]  # noqa: UP007


def serve(settings: Settings, store: Store) -> int:
    """Serve one client on stdin and stdout until it leaves."""
    server(settings, store).run("stdio")
    return 0


def server(settings: Settings, store: Store) -> MCPServer:
    """The server with all of its tools, over this store."""
    tools = _Tools(store, settings.workspace(store, lambda event, **data: None))
    mcp_server = MCPServer("tunesmith", version=VERSION, instructions=_ABOUT, log_level="ERROR")
    for tool, annotations in tools.all():
        mcp_server.tool(annotations=annotations)(_plain_errors(tool))
    return mcp_server


def _plain_errors(tool: Callable[P, T]) -> Callable[P, T]:
    """A tool whose refusals reach the model as the sentences that they are."""

    @wraps(tool)
    def carried_out(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return tool(*args, **kwargs)
        except TunesmithError as error:
            raise ToolError(one_line(str(error))) from None
        except Exception as error:  # a client is told in a line, and the server goes on
            raise ToolError(one_line(unexpected(error))) from None

    return carried_out


@dataclass(frozen=True)
class _Tools:
    """What a client may call. The docstrings are what its model reads."""

    store: Store
    ws: Workspace

    def all(self) -> Sequence[tuple[Callable[..., object], ToolAnnotations]]:
        """Every tool, and what a client should know of it."""
        fits, plan, start = self._asking()
        return (
            *((tool, _READS) for tool in (self.status, self.ask, self.compare, self.query, self.manual)),
            (fits, _ASKS_THE_HUB),
            (self.describe_behaviour, _PRICES),
            (self._planning(), _PRICES),
            (plan, _PRICES),
            (start, _STARTS),
            (self.get_step, _READS),
            (self.stop, _STOPS),
            (self.by_hand, _READS),
        )

    def status(self) -> Json:
        """This machine, what is at work, what is served, the newest run with what could follow, and what can be
        planned."""
        from tunesmith.agent.commands import served_models
        from tunesmith.tools.pipeline.following import next_stages
        from tunesmith.tools.serving.eviction import machine_for_a_step

        newest = self.store.newest_run()
        machine = machine_for_a_step(self.store.home)
        return {
            "machine": {
                "gpus": [gpu.name for gpu in machine.gpus],
                **picked(machine, "vram_free_bytes", "ram_free_bytes", "disk_free_bytes"),
            },
            "at_work": [_step(step) for step in self.store.steps(status=RUNNING)],
            # the newest: older ones were left
            "waiting_for_a_yes": [_step(step) for step in self.store.priced_steps() if step.status == PLANNED][-5:],
            "served": [{name: line[name] for name in _OF_A_SERVER} for line in served_models.status(self.store)],
            "newest_run": self._run_line(newest) if newest else None,
            "could_follow": next_stages(self.store, newest),
            "stages": {entry.name: entry.summary for entry in catalog.STAGES if entry.expensive},
        }

    def ask(self, question: Question) -> Json:
        """Any question about the runs, by its kind and arguments: what a run came to, a step's time, memory or
        failure, what passes, counts of cases and rows, settings and who chose them, losses, files, approvals, what
        to try next. Leave `run` out for the newest that has it. Texts of rows, cases and answers are never told."""
        return ask(question, Records(self.ws, self.store.newest_run())).as_json()

    def compare(
        self, run: str | None = None, arms: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    ) -> Json:
        """Two arms of a run, paired case by case: counts by block, exact tests, and the claim. Arms are base,
        prompted, adapter, merged, quantized."""
        from tunesmith.tools.evaluation.compare import compare_with_hops

        run, (first, second) = self._newest(run), arms or ("base", "adapter")
        compared = compare_with_hops(self.store, run, first, second)
        document = compared.to_json()
        # Of the whole document what is counted: the rest quotes answers.
        visible = (
            "run", "arms", "comparable", "differs_in", "refused", "claim", "people", "worse", "left_out", "alpha",
        )  # fmt: skip
        counted = ("cases", "judged", "passed", "errors", "fail_to_pass", "pass_to_fail", "p_value", "verdict")
        blocks = {name: asdict(block) for name, block in compared.whole.blocks.items()}
        return {
            **{name: document[name] for name in visible if name in document},
            "blocks": {name: {key: block[key] for key in counted} for name, block in blocks.items()},
            "type_for_the_cases": f"tunesmith compare {run} --arms {first},{second}",
        }

    def query(self, select: str) -> Json:
        """One read-only SELECT over the views v_runs, v_steps, v_flips, v_lineage."""
        table = ask_in_process(self.store.path, select, only=tuple(VIEWS), home=self.store.home)
        return {"columns": list(table.columns), "rows": [list(row) for row in table.rows], "more": table.truncated}

    def manual(self, about: str) -> Json:
        """What tunesmith itself is, does, needs and sends, how a thing is done, and what a term means."""
        from tunesmith.agent.driver.manual import manual

        sections, further = manual(about, self.store.home, lambda: "Another agent asks over MCP.")
        return {"manual": sections, "further_sections": further}

    def by_hand(
        self, what: Literal["ask_model", "stop_serving", "review_rows"], run: str | None = None, message: str = ""
    ) -> Json:
        """The command by which the person does what only they can: ask a run's model, whose answers are theirs to read,
        end what is served, look through rows."""
        words = {"ask_model": ["ask"], "stop_serving": ["serve", "stop"], "review_rows": ["rows", "review"]}[what]
        named = [f"--run={self.store.run(run).id}"] * (what == "ask_model") if run else []
        return {"type_this": shlex.join(["tunesmith", *words, *named, *(["--", message] if message else [])])}

    def get_step(self, step: str, wait_s: Annotated[float, Field(ge=0, le=MOST_WAIT_S)] = 0) -> Json:
        """How a step is doing; with `wait_s` the answer waits so long for its end. The step goes on either way."""
        deadline = time.monotonic() + wait_s
        while not (now := self.store.step(step)).ended and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        return _step(now)

    def stop(self, step: str, ctx: Context) -> Json:
        """End a step at work, unasked. What it did is kept: going on from there takes a new yes."""
        client = ctx.session.client_params
        name = one_line(client.client_info.name if client else "")[:40] or "an agent"  # a stranger's text
        return _step(launcher.stop(self.store, step, by=f"{name} over MCP"))

    def describe_behaviour(self, behaviour: Described) -> Json:
        """Write down what a new behaviour is to be: when, what, never and three examples at least. What is missing is
        told. No example counts as a person's. `plan_fine_tune` plans it by its name."""
        from tunesmith.agent.mcp_plans import described

        return described(self.ws, behaviour)

    # What a person is asked about

    def _asking(self) -> Sequence[Callable[..., object]]:
        """`fits`, `plan` and `start`: what each has asked stands in its own signature."""
        shown = _plain_errors(self._shown)

        @_plain_errors
        def ask_price(waiting: Annotated[Shown, Resolve(shown)], ctx: Context) -> Elicit[Agreed] | Agreed:
            return price_to_agree_to(waiting, ctx)

        @_plain_errors
        def of_a_model(model: str, ctx: Context) -> Elicit[Allowed] | Allowed:
            return leave_to_look([model], ctx)

        def fits(
            model: str, leave: Annotated[ElicitationResult[Allowed], Resolve(of_a_model)], card: str | None = None
        ) -> Json:
            """Whether a model could be trained, measured, quantized and served here, or on a card (4090, 24)."""
            if not isinstance(leave, AcceptedElicitation) or not leave.data.allow:
                return {"answered": False, "type_this": shlex.join(["tunesmith", "fits", model])}
            return self._fits(model, card or "")

        @_plain_errors
        def of_fields(stage: str, ctx: Context, fields: Json | None = None) -> Elicit[Allowed] | Allowed:
            priced = [name for name, one in catalog.BY_NAME.items() if one.expensive]
            if stage not in priced:
                raise BadInput(f"{stage!r} is no step that is priced; those are {', '.join(priced)}")
            request = catalog.BY_NAME[stage].load().request
            return leave_to_look(places(request, our_names(fields or {}, request.model_fields).fields), ctx)

        def plan(
            stage: str,
            leave: Annotated[ElicitationResult[Allowed], Resolve(of_fields)],
            run: str | None = None,
            fields: Json | None = None,
        ) -> Json:
            """The price of one step, and its plan_hash; nothing is started. What `fields` leave out is chosen; a step
            that broke off, with no other fields, goes on."""
            if not isinstance(leave, AcceptedElicitation) or not leave.data.allow:
                typed = _typed(stage, run, fields or {})
                raise BadInput(f"nobody allowed to look at the places in the fields; a person types `{typed}`")
            chosen = dict(fields or {})
            named = {str(one) for one in (run, chosen.pop("run", None)) if one}
            if len(named) > 1:
                raise BadInput(f"two runs are named: {' and '.join(sorted(named))}; name one")
            # `given` asks the hub for a commit where none is named: only after a person's yes
            asked_for = StepRequest if isinstance(leave.data, NotNeeded) else StepRequest.given
            return _price(propose_step(self.ws, replace(asked_for(stage, chosen), run=str(*named))))

        def start(
            plan_hash: str,
            waiting: Annotated[Shown, Resolve(shown)],
            price: Annotated[ElicitationResult[Agreed], Resolve(ask_price)],
        ) -> Json:
            """Have the person agree to a planned step, and start it. Nobody else can agree to it."""
            return self._start(waiting, price)

        return fits, plan, start

    def _planning(self) -> Callable[..., object]:
        """`plan_fine_tune`, with what it has asked in its signature."""

        @_plain_errors
        def of_changes(ctx: Context, changes: Changes | None = None) -> Elicit[Allowed] | Allowed:
            from tunesmith.agent.mcp_plans import places_of

            return leave_to_look(places_of(self.ws, changes or Changes()), ctx)

        def plan_fine_tune(
            behaviour: str,
            leave: Annotated[ElicitationResult[Allowed], Resolve(of_changes)],
            pace: Literal["fast", "full"] = "full",
            changes: Changes | None = None,
        ) -> Json:
            """The whole plan that teaches a behaviour (described here, or demo) with its prices, and which changes were
            not taken; called again with others it is planned anew. Nothing is started: give each step's stage and
            fields to `plan`, in order, then `start`, or name the command by which the person carries out all of it."""
            from tunesmith.agent.mcp_plans import places_of, planned

            changes = changes or Changes()
            allow = isinstance(leave, AcceptedElicitation) and leave.data.allow
            return planned(self.ws, behaviour, pace, changes, places_of(self.ws, changes) if allow else None)

        return plan_fine_tune

    def _newest(self, run: str | None) -> str:
        if run:
            return self.store.run(run).id
        newest = self.store.newest_run()
        if newest is None:
            raise BadInput("there is no run yet; plan the stage `base` first")
        return newest.id

    def _run_line(self, record: Run) -> Json:
        counts = self.store.step_counts(record.id)
        return {
            "run": record.id,
            "name": record.name,
            "status": self.store.status_words(record),
            "steps_done": counts.done,
            "steps": counts.total,
        }

    def _fits(self, model: str, card: str) -> Json:
        from tunesmith.tools.machine.cards import card_of
        from tunesmith.tools.models.find import find_model
        from tunesmith.tools.pipeline.fits import facts_here, fits, to_json

        named_model, revision = find_model(model)
        other = card_of(card) if card else None
        facts = facts_here(self.store, vllm=self.ws.vllm, card=other)
        return {"answered": True, **to_json(fits(named_model, facts, revision=revision), other)}

    def _shown(self, plan_hash: str) -> Shown:
        """The newest step that waits with this plan. A part of its hash is not enough: a yes is to one plan."""
        waiting = [one for one in self.store.priced_steps() if (one.status, one.plan_hash) == (PLANNED, plan_hash)]
        if not waiting:
            raise BadInput(
                f"no step waits with plan {plan_hash[:80]!r}; call `plan`, and give its plan_hash, all 64 characters"
            )
        return Shown(waiting[-1], current_plan(waiting[-1]))

    def _start(self, shown: Shown, price: ElicitationResult[Agreed]) -> Json:
        step, plan = shown.step, shown.plan
        by_hand = f"tunesmith {plan.stage} --approve {plan.hash[:12]}"
        if isinstance(price, AcceptedElicitation) and price.data.start:
            if (now := self.store.step(step.id)).status != PLANNED:
                raise BadInput(f"{step.id} waits for a yes no more: it is {now.status}; call `get_step`")
            return {"started": True, **_step(run_pending(self.ws, step, shown, follow=False).step)}
        if isinstance(price, AcceptedElicitation) and isinstance(price.data, Unasked):
            return {"started": False, "why": "this client cannot ask its person", "type_this": by_hand}
        reason = price.data.reason if isinstance(price, AcceptedElicitation) else ""
        if isinstance(price, DeclinedElicitation | AcceptedElicitation):
            cost = plan.estimate.model_dump(mode="json")
            self.store.decide(step.id, "no", by="mcp", reason=reason, price=cost)
            return {"started": False, "why": one_line(reason) or "the person said no"}
        return {"started": False, "why": "the person did not answer", "type_this": by_hand}


def _typed(stage: str, run: str | None, fields: Json) -> str:
    """A step with its fields as a person types it into a shell."""
    words = ["tunesmith", stage, *(["--run", run] if run else [])]
    for name, value in fields.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _step(step: Step) -> Json:
    """A step as the model may see it: numbers and names."""
    visible = {name: getattr(step, name) for name in _OF_A_STEP}
    return {"step": step.id, **visible, "error": one_line(step.error) if step.error else None}


def _price(step: Step) -> Json:
    """A priced step, as the model may see it."""
    plan = current_plan(step)
    estimate = plan.estimate
    return {
        "plan_hash": plan.hash,
        "step": step.id,
        **picked(plan, "run", "stage", "summary"),
        "estimated_seconds": estimate.seconds,
        "based_on": estimate.basis,
        **picked(estimate, "peak_ram_bytes", "peak_vram_bytes", "disk_bytes"),
        "replaces": list(plan.replaces),
        "notes": list(plan.notes),
        "fields": {name: value for name, value in plan.request.items() if name != "run"},
    }
