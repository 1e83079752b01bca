"""Programs on another machine, through the Jobs API of the head of a Ray cluster.

Ray refuses a submission id a second time, so nothing is started twice. A request that no node can hold would wait for
ever: what the nodes have is looked at first. Not covered: where in a cluster of several machines a step's files are;
every step goes to the same node.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.core.format import size
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.serving.listeners import Guard

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient
    from requests.adapters import HTTPAdapter

_ANSWER_S = 60.0
"""A head that is busy starting workers answers late; one that is gone never does."""
_STOP_S = 60
"""So long Ray waits after SIGTERM; three seconds, its own, are too few for a model server to end."""
_AT_WORK = ("PENDING", "RUNNING")
_STEP = "tunesmith-step"
_OF_RAY = re.compile(
    r"^(?:\S+ \S+\tINFO job_manager\.py:|Running entrypoint for job |Job has not started yet\.).*\n?", re.M
)
"""Lines that Ray writes into a program's output, some of them after the program's own last words."""


class NotReached(StepFailed):
    """The head did not answer; what runs there goes on."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, and what Ray may give away of it."""

    ip: str
    resources: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a program needs for itself while it runs."""

    cpus: float = 0.0
    cards: float = 0.0
    memory_bytes: int = 0

    def lacking(self, node: Node, place: str) -> str:
        """Why a node can never hold this, with the numbers; empty where it can."""
        wanted = {"GPU": self.cards, "CPU": self.cpus, "memory": self.memory_bytes}
        shortfalls = ", ".join(
            f"{_amount(name, need)} ({_amount(name, have)} there)"
            for name, need in wanted.items()
            if need > (have := node.resources.get(name, 0.0))
        )
        return shortfalls and (
            f"{place} can never hold this step: it needs {shortfalls}; give its Ray more (`ray start --num-gpus, "
            "--num-cpus, --memory`), or leave `on` out"
        )


@dataclass(slots=True)
class RayLauncher:
    """Starts, looks at and ends programs on one node of a cluster, each by the name that it was started under."""

    client: JobSubmissionClient
    """Or what answers like one."""
    place: str
    needs: Reservation = field(default_factory=Reservation)
    step: str = ""
    """What a step is known by beside its id: a copy of a home has steps of the same ids."""

    def start(self, name: str, argv: Sequence[str]) -> None:
        """Submit a program under its name; one that was submitted already is only taken up.

        Raises BadInput where it can never run there, StepFailed where it was not started.
        """
        if self.knows(name):
            return
        node = self.node()
        if lacking := self.needs.lacking(node, self.place):
            raise BadInput(lacking)
        with self._asked():
            self.client.submit_job(
                # What Ray sets it to is what was reserved, not what the program would choose.
                entrypoint=f"exec /usr/bin/env -u OMP_NUM_THREADS {shlex.join(argv)}",
                submission_id=name,
                runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S)}},
                metadata={_STEP: self.step},
                entrypoint_num_cpus=self.needs.cpus or None,
                entrypoint_num_gpus=self.needs.cards or None,
                entrypoint_memory=self.needs.memory_bytes or None,
                # Ray's own way to name a node; a thousandth, so that any number of steps fits beside each other.
                entrypoint_resources={f"node:{node.ip}": 0.001},
            )

    def knows(self, name: str) -> bool:
        """Whether something was submitted under a name. Raises StepFailed where that is another home's step."""
        try:
            with self._asked():
                info = self.client.get_job_info(name)
        except _Unknown:
            return False
        if (info.metadata or {}).get(_STEP, "") != self.step:
            raise StepFailed(
                f"{self.place} knows {name} as another step: this home is a copy of one that works there too; remove "
                "ray-home-id in one of the two, and price the step again"
            )
        return True

    def alive(self, name: str) -> bool:
        """Whether it runs or waits; what can no longer begin is refused instead of waited for."""
        with self._asked():
            status = str(getattr(self.client.get_job_status(name), "value", ""))
        if status == "PENDING" and (lacking := self.needs.lacking(self.node(), self.place)):
            raise StepFailed(lacking)
        return status in _AT_WORK

    def stop(self, name: str) -> None:
        """Ask Ray to end it: SIGTERM, and SIGKILL a minute later."""
        with self._asked():
            self.client.stop_job(name)

    def log(self, name: str) -> str:
        """What it printed, and Ray's own words where it never came to that."""
        with self._asked():
            text, info = self.client.get_job_logs(name), self.client.get_job_info(name)
        return _OF_RAY.sub("", str(text)) or str(info.message or "")

    def node(self) -> Node:
        """The node that works: the one with the most cards, of equals the one with the most memory."""
        with self._asked():
            # Private: the client has no call for nodes, and this one carries its token and address.
            answer = self.client._do_request("GET", "/api/v0/nodes?detail=true")
            listed = answer.json()["data"]["result"]["result"]
        nodes = [Node(one["node_ip"], one["resources_total"]) for one in listed if one["state"] == "ALIVE"]
        if not nodes:
            raise NotReached(f"{self.place} answers, but no machine has joined it yet; try again in a moment")
        return max(nodes, key=lambda node: (node.resources.get("GPU", 0.0), node.resources.get("memory", 0.0)))

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Errors of the client as a sentence each."""
        try:
            yield
        except Exception as error:  # Ray's own have no common root but this
            raise _in_words(self.place, error) from error


class _Unknown(StepFailed):
    """The head knows no such submission."""


def _in_words(place: str, error: Exception) -> StepFailed | BadInput:
    text, name = " ".join(str(error).split()), type(error).__name__
    if isinstance(error, StepFailed | BadInput):
        return error
    if name == "AuthenticationError":
        return BadInput(
            f"{place} does not take the token of [ray] token_file; copy the one that its head was started with"
        )
    # Ray's client raises bare RuntimeErrors: only their words tell one from another.
    if "status code 404" in text or "does not exist" in text:
        return _Unknown(f"{place} knows no such submission: its head was restarted since; going on submits it anew")
    if isinstance(error, OSError):
        return NotReached(f"{place} does not answer ({name}); is its Ray head up? `ray status` there says so")
    return StepFailed(f"{place} refused: {text[:300]}")  # a server's page of HTML, maybe


def _amount(name: str, number: float) -> str:
    return f"{size(int(number))} of memory" if name == "memory" else f"{number:g} {name}"


def connect(settings: RaySettings, home: Path) -> JobSubmissionClient:
    """A client of the head, its token sent with every request. Raises BadInput, NotReached."""
    address, token = settings.head(), settings.token(home)
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise BadInput(
            "ray is not installed here; `pip install 'tunesmith[ray]'` into tunesmith's environment"
        ) from None

    from requests import Response, Session

    headers = {"Authorization": f"Bearer {token}"}
    proxies = {"http": "", "https": "", "all": ""} if address.is_loopback else None

    class Client(JobSubmissionClient):
        """It waits for no answer for ever, follows nobody elsewhere, asks this machine without a proxy, and sends the
        token only over a connection that was looked at."""

        # private: no public hook sets a timeout or sees a connection before the request
        def _do_request(
            self, method: str, endpoint: str, *, data: bytes | None = None, json_data: Any = None
        ) -> Response:
            with Session() as session:
                for scheme in ("http://", "https://"):
                    session.mount(scheme, _guarded(Guard(address)))
                answer = session.request(
                    method, f"{address.url}{endpoint}", data=data, json=json_data, headers=headers, proxies=proxies,
                    timeout=_ANSWER_S, allow_redirects=False,
                )  # fmt: skip
            if answer.status_code in (401, 403):
                raise AuthenticationError(answer.reason)
            return answer

    try:
        return Client(address.url, headers=headers)
    except Exception as error:  # Ray raises bare RuntimeErrors, and its transport's own kinds
        raise _in_words(address.place, error) from error


def _guarded(guard: Guard) -> HTTPAdapter:
    """What opens connections for requests, with a guard's question before anything is sent."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    def asking(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):
            def connect(self) -> None:
                super().connect()
                guard.after(self.sock)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    adapter = HTTPAdapter()
    pools = {"http": asking(HTTPConnectionPool), "https": asking(HTTPSConnectionPool)}
    adapter.poolmanager.pool_classes_by_scheme = pools
    return adapter
