"""What the controls say of a suite and of an arm, in sentences that a verdict gives as its reasons."""

from __future__ import annotations

from tunesmith.tools.evaluation.controls import NEARLY_RIGHT, AnswerControls, Control


def tells_nothing(controls: AnswerControls) -> str:
    """Why the suite's cases cannot tell whether the meaning was learned; empty where they can."""
    if controls.shuffle is None:
        return "they all come from one message"
    silent = [one for one in controls.all if one.state == "tells nothing"]
    if controls.form_alone and controls.constant:
        silent.append(controls.constant.on_target or controls.constant)
    if controls.is_echo:  # that the arm says nothing of its own shows without the suite's help
        silent = [one for one in silent if one is not controls.echo]
    if not silent:
        return ""
    part = _telling(silent[0])
    # Of more such cases the control would fail as large a share: enough of them would tell, unless it fails hardly any.
    few = part.cases - part.passed > 2 * (1 - NEARLY_RIGHT) * part.cases
    why = "they are too few to tell the arm from a control" if few else "their assertions hold the form alone"
    return f"{why}: {_does(silent[0])}"


def as_good(controls: AnswerControls) -> tuple[str, ...]:
    """Which controls do as well as the arm."""
    equal = [one for one in controls.all if one.state == "as good"]
    if controls.echo and controls.is_echo and controls.echo.state == "tells nothing":
        equal.append(controls.echo)
    return tuple(f"a control does as well: {_does(one)}" for one in equal)


def _telling(control: Control) -> Control:
    return control.on_target if control.on_target and not control.on_target.beaten else control


def _does(control: Control) -> str:
    part = _telling(control)
    subject = {
        "shuffle": "its own answers, each given to another message,",
        "constant": f"one answer to everything, “{' '.join(control.answer.split())[:60]}”,",
        "echo": f"an echo ({control.answer})",
    }[control.name]
    return f"{subject} passes {part.passed} of {part.cases}, the arm {part.own}".replace(
        "message, passes", "message, pass"
    )
