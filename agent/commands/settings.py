"""Where tunesmith lives and which vLLM it starts; the only place that reads tunesmith's environment variables.

An environment variable comes before `HOME/settings.toml`, that before what is found by looking. Not covered: what
the found vLLM can do, and whether it starts; `tunesmith doctor` says that.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, Field, ValidationError

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.tools.core.local_paths import expanded
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.evaluation.judge_settings import JudgeSettings
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.pipeline.ray_settings import RaySettings

if TYPE_CHECKING:
    from tunesmith.memory.store import Store
    from tunesmith.tools.pipeline.workspace import Ask, Emit, Workspace

_FILE = "settings.toml"
TRACKERS = (
    "WANDB_", "MLFLOW_", "COMET_", "NEPTUNE_", "CLEARML_", "TRACKIO_", "SWANLAB_", "DAGSHUB_", "DVCLIVE_",
    "CODECARBON_",
)  # fmt: skip
"""How the variables begin by which transformers and trl would find a tracker."""


class DriverSettings(BaseModel, frozen=True, extra="forbid"):
    """`[driver]`: the language model that the conversation is held with."""

    model: str = "bundled-driver"
    """'bundled-driver' (Qwen2.5-Coder-1.5B-Instruct) or a folder of safetensors; tunesmith serves it."""
    endpoint: str = ""
    """An OpenAI-compatible endpoint to use instead, such as http://127.0.0.1:8000/v1."""
    name: str = ""
    """The model to ask that endpoint for."""
    key_env: str = ""
    """Environment variable that holds the endpoint's key."""
    allow_plain_http: bool = False
    """Whether the key may go to an endpoint on another machine over plain http, where everybody on the way reads it."""
    tool_parser: str = "hermes"
    """vLLM's name for how this model writes tool calls."""
    routing: Literal[True, False, "auto"] = "auto"
    """true: code reads the words (fallback); false: the model chooses tools itself (native). auto: native where this
    driver passed its examination, which is held behind the first answer or by `doctor --driver`."""
    context_tokens: int = Field(default=8192, gt=0)
    """Longest conversation that the driver is served with, or an endpoint sent. Unset: what the endpoint says of it."""
    timeout_s: float = Field(default=180.0, gt=0)
    """Longest wait for the driver to say anything; it is asked a second time before the turn gives up."""
    key: str = Field(default="", repr=False)
    """Read from `key_env`; never written in the file."""


class NetworkEnvironment(BaseModel, frozen=True, extra="forbid"):
    """What the environment says of other machines; of keys the names alone."""

    hub: str = "https://huggingface.co"
    """HF_ENDPOINT, as huggingface_hub reads it; … stands for a user or a password in it."""
    hub_offline: bool = False
    trackers: tuple[str, ...] = ()
    """Variables that are set and that would switch a tracker on in other programs."""


class SettingsFile(BaseModel, frozen=True, extra="forbid"):
    """What may stand in HOME/settings.toml."""

    vllm: str | None = None
    """The vllm program, absolute or relative to HOME."""
    driver: DriverSettings = DriverSettings()
    judge: JudgeSettings = JudgeSettings()
    ray: RaySettings = RaySettings()


class Settings(SettingsFile, frozen=True):
    """What this start of tunesmith works with; its `vllm` is a program that is there, or None."""

    home: Path
    """Holds tunesmith.db, models/, runs/, logs/, history and settings.toml."""
    vllm_from: str = "nowhere"
    """Why it is this program, in words."""
    network: NetworkEnvironment = NetworkEnvironment()
    editor: str = "vi"
    """The program that a draft is edited in: VISUAL, else EDITOR."""

    @property
    def own_model(self) -> str:
        """The folder that `[driver] model` names, if it is one that is served here; else empty."""
        chosen, folder = self.driver, self.home / expanded(self.driver.model)
        return str(folder) if not chosen.endpoint and chosen.model not in BUNDLED and folder.is_dir() else ""

    def workspace(self, store: Store, emit: Emit, ask: Ask | None = None) -> Workspace:
        """Where steps are carried out with these settings; `emit` is told of them, `ask` answers what a plan asks."""
        from tunesmith.tools.pipeline.workspace import Workspace, ask_nobody

        return Workspace(store, self.vllm, emit, self.vllm_from, ask or ask_nobody, self.own_model, self.ray)


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this start. Raises BadInput where settings.toml is not what it should be."""
    home = home_of(environ)
    file = _read_file(home / _FILE)
    vllm, source = _find_vllm(environ, home, file.vllm)
    # Ray's own client lets these variables name another head.
    other_head = next((name for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS") if environ.get(name)), "")
    return Settings(
        home=home,
        vllm=vllm,
        vllm_from=source,
        driver=_driver(environ, file.driver),
        judge=file.judge,
        ray=file.ray.model_copy(update={"overridden_by": other_head}),
        network=_network(environ),
        editor=environ.get("VISUAL") or environ.get("EDITOR") or "vi",  # in the order that git goes by
    )


def _network(environ: Mapping[str, str]) -> NetworkEnvironment:
    offline = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    return NetworkEnvironment(
        hub=re.sub("(?s).*@", "…@", environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        # The words that huggingface_hub takes for yes.
        hub_offline=offline.upper() in ("1", "ON", "YES", "TRUE"),
        trackers=tuple(sorted(name for name in environ if name.startswith(TRACKERS) and environ[name])),
    )


def _driver(environ: Mapping[str, str], driver: DriverSettings) -> DriverSettings:
    """TUNESMITH_DRIVER (a folder, or an endpoint's URL) and TUNESMITH_DRIVER_NAME come before the file.

    What the file allows of its own endpoint, it does not allow of another.
    """
    named = environ.get("TUNESMITH_DRIVER", "")
    if "://" in named:  # an address that cannot be used is told as one, and not looked for among the folders
        allowed = driver.allow_plain_http and named == driver.endpoint
        driver = driver.model_copy(update={"endpoint": named, "allow_plain_http": allowed})
    elif named:
        driver = driver.model_copy(update={"model": named, "endpoint": ""})
    if name := environ.get("TUNESMITH_DRIVER_NAME"):
        driver = driver.model_copy(update={"name": name})
    return driver.model_copy(update={"key": environ.get(driver.key_env, "") if driver.key_env else driver.key})


def home_of(environ: Mapping[str, str] = os.environ) -> Path:
    """TUNESMITH_HOME, else the platform's user data directory. Raises BadInput for the home of a user who has none."""
    named = environ.get("TUNESMITH_HOME")
    return expanded(named).absolute() if named else user_data_path("tunesmith", appauthor=False)


def _read_file(path: Path) -> SettingsFile:
    try:
        return SettingsFile.model_validate(tomllib.loads(read_plain_text(path)))
    except NotFound:  # a home without settings, or none yet
        return SettingsFile()
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # endless brackets are no TOML's error
        raise BadInput(f"cannot read {path}: {error}") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {sentence(error.errors()[0], SettingsFile)}") from None


def _find_vllm(environ: Mapping[str, str], home: Path, in_file: str | None) -> tuple[str | None, str]:
    """The vllm program and where it was named. One that was named and is not there is not replaced by another.

    A relative path starts from the present folder in the environment variable, from HOME in the file.
    """
    for source, named, folder in (
        ("TUNESMITH_VLLM", environ.get("TUNESMITH_VLLM"), Path.cwd()),
        (str(home / _FILE), in_file, home),
    ):
        if named:
            program = find_vllm(str(folder / Path(named).expanduser()) if "/" in named else named)
            return (program, source) if program else (None, f"{source} names {named}, which is not a program")
    program = find_vllm(None)
    if program is None:
        return None, "nowhere"
    return program, "the set-up" if program != shutil.which("vllm") else "PATH"
