"""A suite's providers: what they send with every request, and which arms they stand for.

Arms are what is asked here, so a provider stands for the arm that its label names, else its id, else the last part of
its id (`openai:chat:adapter`). Where the providers name arms, only these are asked; where none does, every arm is, and
a provider only says which tools and sampling go along. A test's `providers` restricts it as in promptfoo 0.123: by
label, by id, by the beginning of either (`openai`, `openai:*`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunesmith.memory.arms import ARMS
from tunesmith.tools.suites.files import SuiteFiles
from tunesmith.tools.suites.grading.calls import check_tools

_EXEC_PREFIXES = (
    "exec:", "python:", "javascript:", "ruby:", "golang:", "file:", "package:", "webhook", "http:", "https:",
)  # fmt: skip


def _number(low: float, high: float) -> Callable[[object], bool]:
    # True is an int, too
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(low: int, high: int) -> Callable[[object], bool]:
    # True is an int, too
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _stops(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) and text for text in texts)


# Bounds are those of vLLM's requests, and of the integers behind them, so that nothing is refused case by case.
_SAMPLING: dict[str, tuple[Callable[[object], bool], str]] = {
    "temperature": (_number(0, 2), "a number from 0 to 2"),
    "top_p": (_number(1e-6, 1), "a number over 0, at most 1"),
    "top_k": (_whole(-1, 2**31), "a whole number; -1: all"),
    "min_p": (_number(0, 1), "a number from 0 to 1"),
    "max_tokens": (_whole(1, 2**31), "a whole number from 1"),  # no context is longer
    "seed": (_whole(-(2**62), 2**62), "a whole number"),  # vLLM takes 64 bits, and a repeat is added to it
    "stop": (_stops, "a text, or a list of texts"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "repetition_penalty": (_number(1e-6, 100), "a number over 0"),  # 1e-6: as good as 0, which vLLM refuses
    "response_format": (lambda value: isinstance(value, dict) and isinstance(value.get("type"), str),
                        "a mapping with a type, such as {type: json_object}"),
}  # fmt: skip
_REFUSED = {
    "transform": "it is code, which is never run; grade the output as it is",
    "prompts": "every arm is asked the same prompts, or they could not be compared; restrict tests by prompts instead",
    "env": "it sets environment variables, which suites may not; remove it",
}
_NAME_ONE = f"label it with the arm that it stands for: {', '.join(ARMS)}"


@dataclass(frozen=True)
class Offer:
    """What the suite's provider sends with every request."""

    tools: list[dict[str, object]] = field(default_factory=list)
    tool_choice: object = None
    sampling: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Provider:
    """One entry of a suite's providers."""

    id: str
    label: str
    offer: Offer

    @property
    def arm(self) -> str:
        """The arm that it stands for; empty where it names none."""
        return next((name for name in (self.label, self.id, self.id.rpartition(":")[2]) if name in ARMS), "")

    def matches(self, reference: str) -> bool:
        """Whether a test's reference means this one."""
        if reference.endswith("*"):
            return any(name.startswith(reference[:-1]) for name in (self.label, self.id) if name)
        return any(name == reference or name.startswith(f"{reference}:") for name in (self.label, self.id) if name)


@dataclass(frozen=True)
class Providers:
    """All of a suite; none is one that asks every arm and sends nothing along."""

    listed: tuple[Provider, ...] = ()

    @property
    def offer(self) -> Offer:
        """What goes with every request, the same for all of them."""
        return self.listed[0].offer if self.listed else Offer()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that the suite is for; empty: every one."""
        return _some([provider.arm for provider in self.listed])

    def arms_of(self, files: SuiteFiles, near: object, references: object) -> tuple[str, ...]:
        """The arms that a test with these `providers` is asked of; empty: every one. Raises BadInput at the test."""
        if references is None:
            return self.arms
        if not isinstance(references, list) or not all(isinstance(item, str) and item for item in references):
            files.refuse(near, "providers of a test is a list of labels or ids of the suite's providers")
        if not references:
            files.refuse(near, "providers is an empty list, so no arm would be asked this; remove the test, or the key")
        meant: list[Provider] = []
        for reference in references:
            matching = [provider for provider in self.listed if provider.matches(reference)]
            if not matching:
                known = ", ".join(repr(p.label or p.id) for p in self.listed) or "none"
                files.refuse(near, f"the provider {reference[:60]!r} is none of the suite's providers ({known})")
            meant += matching
        if all(provider in meant for provider in self.listed):
            return self.arms
        if nameless := [provider for provider in meant if not provider.arm]:
            files.refuse(near, f"the test is for the provider {nameless[0].id[:60]!r}, which names no arm; {_NAME_ONE}")
        return _some([provider.arm for provider in meant])


def _some(arms: Sequence[str]) -> tuple[str, ...]:
    """These arms in their order; all of them are no restriction."""
    named = tuple(arm for arm in ARMS if arm in arms)
    return () if named == ARMS else named


def read_providers(files: SuiteFiles, config: dict[str, object]) -> Providers:
    """The suite's providers. Raises BadInput for one that runs code, for two of one arm, or where they differ."""
    listed = config.get("providers", config.get("targets")) or []
    read = [_provider(files, config, item) for item in (listed if isinstance(listed, list) else [listed])]
    arms = [provider.arm for provider in read if provider.arm]
    if any(provider.offer != read[0].offer for provider in read):
        files.refuse(
            config, "providers differ in tools or sampling; every arm must be asked the same: give them one config"
        )
    if arms and len(arms) < len(read):
        odd = next(provider.id for provider in read if not provider.arm)
        files.refuse(config, f"the provider {odd[:60]!r} names no arm, and others do; {_NAME_ONE}, or remove it")
    if twice := [arm for arm in ARMS if arms.count(arm) > 1]:
        files.refuse(config, f"two providers stand for the arm {twice[0]!r}; keep one")
    return Providers(tuple(read))


def _provider(files: SuiteFiles, near: object, provider: object) -> Provider:
    declared: object = None
    if isinstance(provider, dict) and "id" not in provider and len(provider) == 1:
        ((name, declared),) = provider.items()
    elif isinstance(provider, dict):
        name, declared = provider.get("id"), provider
    else:
        name = provider
    options = declared or {}
    if not isinstance(name, str) or not isinstance(options, dict):
        kind = "nothing" if provider is None else type(provider).__name__
        files.refuse(near, f"a provider is a name or a mapping with an id; this is {kind}")
    where = provider if isinstance(provider, dict) else near
    if name.startswith(_EXEC_PREFIXES):
        files.refuse(
            where, f"the provider {name[:60]!r} runs a program or calls out, which is refused; name an openai:… one"
        )
    for key, why in _REFUSED.items():
        if key in options:
            files.refuse(where, f"{key!r} in a provider is refused: {why}")
    return Provider(name, str(options.get("label") or ""), _offer(files, where, options.get("config") or {}))


def _offer(files: SuiteFiles, where: object, settings: object) -> Offer:
    if not isinstance(settings, dict):
        files.refuse(where, "a provider's config is a mapping")
    listed = settings.get("tools") or []
    if isinstance(listed, str):
        listed = files.load(files.named(listed, where)[0])
    try:
        tools = check_tools(listed)
    except ValueError as error:
        files.refuse(settings, str(error))
    sampling = {key: value for key, value in settings.items() if key in _SAMPLING}
    for key, value in sampling.items():
        fits, says = _SAMPLING[key]
        if not fits(value):
            files.refuse(
                settings, f"{key} in a provider's config is {says}, not {value!r}; correct it, or leave it out"
            )
    choice = settings.get("tool_choice")
    if not isinstance(choice, dict) and choice not in (None, "auto", "none", "required"):
        files.refuse(settings, f"tool_choice is auto, none, required, or the mapping of one tool, not {choice!r}")
    return Offer(tools, choice, sampling)
