"""What the hub says about a model before it is downloaded: its files, their sizes, and whether code would come along.

Files below the top folder are left out: nothing here loads them. `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean
to huggingface_hub, which is loaded only when it is asked something.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch

from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError, disk_is_full
from tunesmith.tools.models.folder import ON_TOP, PICKLES, has_auto_map, may_name_code

WANTED = ("*.safetensors", "*.json", "tokenizer*", "*.jinja", "merges.txt", "vocab*", "LICENSE*")
"""The files of a model that are fetched or copied."""
_TIMEOUT_S = 5.0
_JSON_BYTES = 1 << 20  # a longer one is a vocabulary


@dataclass(frozen=True, slots=True)
class HubModel:
    """The files of a model at one commit that would be downloaded, with their sizes."""

    files: Mapping[str, int]
    config: Mapping[str, object] = field(default_factory=dict)
    """Its config.json; empty where it has none."""

    @property
    def bytes(self) -> int:
        """What the download comes to."""
        return sum(self.files.values())


def inspect_hub(model: str, revision: str) -> HubModel:
    """Read the list of files and the small JSON files of a model at a commit, in a few seconds.

    Raises BadInput for what must not or cannot be loaded (`auto_map`, pickles only) and for what the hub does not have
    or does not give; StepFailed where the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    with errors_named(model, revision):
        info = HfApi().model_info(model, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
    listed = {entry.rfilename: entry.size or 0 for entry in info.siblings or [] if "/" not in entry.rfilename}
    files = _once({name: size for name, size in listed.items() if is_wanted(name)})
    if ON_TOP in files:
        raise BadInput(f"{model} holds {ON_TOP}: it is an adapter, or would load one; take the model that it is for")
    if not any(name.endswith(".safetensors") for name in files):
        pickles = sorted(name for name in listed if any(fnmatch(name, pattern) for pattern in PICKLES))
        if pickles:
            raise BadInput(
                f"{model} has its weights only as a pickle ({pickles[0]}), which can run code; "
                "take a version with safetensors"
            )
        raise BadInput(f"{model} has no *.safetensors weights at {revision[:12]}")
    config: Mapping[str, object] = {}
    for name, size in files.items():
        if may_name_code(name) and size <= _JSON_BYTES:
            document = _small_json(model, revision, name)
            _refuse_code(model, name, document)
            config = document if name == "config.json" else config
    return HubModel(files, config)


def _once(files: Mapping[str, int]) -> dict[str, int]:
    """Without the weights in their maker's own layout (`consolidated*.safetensors`), where others are beside them."""
    makers = {name for name in files if fnmatch(name, "consolidated*.safetensors")}
    others = any(name.endswith(".safetensors") for name in files.keys() - makers)
    return {name: size for name, size in files.items() if not (others and name in makers)}


def is_wanted(name: str) -> bool:
    """Whether a file of this name belongs to what is fetched or copied of a model."""
    return any(fnmatch(name, pattern) for pattern in WANTED)


def hub_config(model: str, revision: str) -> dict[str, object]:
    """The config.json of a model at a commit, nothing else of it. Raises as `inspect_hub` does."""
    return _small_json(model, revision, "config.json")


def _refuse_code(model: str, name: str, document: object) -> None:
    if has_auto_map(document):
        raise BadInput(
            f"{name} of {model} has an auto_map: loading it would run code from the model; take a version without it"
        )


def _small_json(model: str, revision: str, name: str) -> dict[str, object]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    with errors_named(model, revision):
        url = hf_hub_url(model, name, revision=revision)
        answer = get_session().get(url, headers=build_hf_headers(), timeout=_TIMEOUT_S)
        hf_raise_for_status(answer)
    try:
        document = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} of {model} is not readable JSON: {error}") from None
    return document if isinstance(document, dict) else {}


@contextmanager
def errors_named(model: str, revision: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do. Raises BadInput, StepFailed."""
    import httpx

    try:
        yield
    except (OSError, httpx.HTTPError) as error:
        raise _named(error, model, f"{model} at {revision[:12]}" if revision else model) from error


def _named(error: Exception, model: str, what: str) -> TunesmithError:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    if disk_is_full(error):
        return StepFailed(
            f"the disk is full: {what} was not downloaded whole; make room or move TUNESMITH_HOME, then try again"
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status < 500:
            return BadInput(f"the hub refused {what}: {status}; {_next_step(status, model)}")
        return StepFailed(f"the hub answered {status} for {what}; try again later, or give a local folder")
    if isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError | FileNotFoundError):
        return StepFailed(
            f"{what} cannot be reached on the hub; check the network and HF_HUB_OFFLINE, or give a local folder"
        )
    return StepFailed(f"{what} was not downloaded: {' '.join(str(error).split())[:300]}")


def _next_step(status: int, model: str) -> str:
    """What to try after a refusal. The hub answers 401 for a missing model as for one that wants a login."""
    from huggingface_hub import constants

    page, log_in = f"{constants.ENDPOINT}/{model}", "`hf auth login`, or HF_TOKEN with a token of your account"
    if status == 401:
        return f"check its name; if it is private or gated, log in ({log_in}) and accept its licence on {page}"
    if status == 403:
        return f"accept its licence on {page} and wait for access, under the account that is logged in ({log_in})"
    if status == 404:
        return f"check its name and its commit on {page}"
    if status == 429:
        return f"it was asked too often: wait some minutes and try again; logged in ({log_in}) you may ask more often"
    return f"check its name, its commit and your access to it on {page}"


def newest_commit(model: str) -> str:
    """The commit that a model on the hub has now, 40 hex digits. Raises as `inspect_hub` does."""
    from huggingface_hub import HfApi

    with errors_named(model, ""):
        commit = HfApi().model_info(model, timeout=_TIMEOUT_S).sha
    if not commit:
        raise BadInput(f"the hub names no commit of {model}; give one as revision=COMMIT")
    return str(commit)
