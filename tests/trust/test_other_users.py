"""Another user of the machine: reads nothing of a home, and cannot hold its locks."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.demo_run import tunesmith
from tunesmith.memory.errors import BadInput
from tunesmith.memory.privacy import make_private
from tunesmith.memory.store import Store

SNOOP = """
import fcntl, os, sys
from pathlib import Path
def tries(path, take):
    try:
        take(path)
        print(path)
    except OSError:
        pass
for root, folders, files in os.walk(sys.argv[1]):
    for name in [*files, *folders]:
        tries(os.path.join(root, name), lambda p: os.listdir(p) if os.path.isdir(p) else open(p, "rb").read(1))
for name in sys.argv[2:]:
    tries(name, lambda p: open(p, "rb").read(1))
    tries(name, lambda p: fcntl.flock(os.open(p, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def seen_by_nobody(home: Path) -> list[str]:
    """What the user `nobody` can open or lock, looking below the home and trying every name that it really has."""
    names = [str(path) for path in home.rglob("*")]
    nobody = pwd.getpwnam("nobody").pw_uid
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    done = subprocess.run(
        [python, "-c", SNOOP, str(home), *names], user=nobody, group=nobody, extra_groups=[], cwd="/",
        capture_output=True, text=True, env={}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
@pytest.mark.parametrize("mode", [None, 0o755, 0o777])
def test_nobody_reads_no_file_and_takes_no_lock(place: Path, mode: int | None) -> None:
    home, before = place / "home", os.umask(0o022)
    try:
        if mode is not None:  # as an earlier version left it
            home.mkdir()
            home.chmod(mode)
            (home / "accelerator.lock").touch(mode=0o644)
            (home / "runs").mkdir()
            (home / "runs" / "worker.log").write_text("said")
            assert str(home / "runs" / "worker.log") in seen_by_nobody(home), "the test itself can see"
        done = tunesmith(home, "inspect", "--json")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert (home / "tunesmith.db").exists() and seen_by_nobody(home) == []


def test_what_a_command_makes_is_for_its_user_alone(place: Path) -> None:
    before = os.umask(0o022)
    try:
        assert tunesmith(place / "home", "inspect", "--json").returncode == 0
    finally:
        os.umask(before)
    made = [place / "home", *(place / "home").glob("tunesmith.db*")]
    assert len(made) > 1 and [oct(stat.S_IMODE(path.stat().st_mode) & 0o077) for path in made] == ["0o0"] * len(made)


def test_a_folder_for_everybody_stays_so_and_what_is_ours_in_it_is_closed(place: Path) -> None:
    place.chmod(0o1777)
    before = os.umask(0o022)
    try:
        Store(place).close()
        (place / "theirs").touch()
        Store(place).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o1777
    assert stat.S_IMODE((place / "theirs").stat().st_mode) == 0o644
    assert stat.S_IMODE((place / "tunesmith.db").stat().st_mode) == 0o600


def test_a_report_that_somebody_asked_for_elsewhere_can_be_shared(tmp_path: Path) -> None:
    from tunesmith.memory.files import atomic_write

    before = os.umask(0o077)
    try:
        atomic_write(tmp_path / "report.html", "<p>")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o644


def test_a_home_that_cannot_be_tightened_is_still_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    make_private(tmp_path)


@pytest.mark.parametrize("holds", [["website.html"], ["settings.toml", "website.html"], ["project/code.py"]])
def test_a_folder_of_something_else_is_refused_and_stays_as_open_as_it_was(place: Path, holds: list[str]) -> None:
    for name in holds:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("")
    done = tunesmith(place, "runs", "list")
    [line] = done.stderr.splitlines()
    assert done.returncode == 2 and "is no home of tunesmith" in line and "new or empty folder" in line
    assert stat.S_IMODE(place.stat().st_mode) == 0o755 and not (place / "tunesmith.db").exists()


@pytest.mark.parametrize("holds", [[], ["settings.toml", "logs", "lost+found"], ["tunesmith.db", "website.html"]])
def test_a_folder_that_is_new_or_ours_is_closed(place: Path, holds: list[str]) -> None:
    for name in holds:
        (place / name).touch()
    make_private(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["runs", "locks", "models", "servers"])
@pytest.mark.parametrize("what", ["file", "link to nothing"])
def test_what_stands_in_the_place_of_a_folder_of_the_home_is_named(place: Path, name: str, what: str) -> None:
    place.chmod(0o700)
    if what == "file":
        (place / name).touch()
    else:
        (place / name).symlink_to(place / "not-mounted")
    with pytest.raises(BadInput, match=rf"{place}/{name} is no folder, and tunesmith keeps its {name} in one; move it"):
        Store(place)
    (place / name).unlink()
    (place / "elsewhere").mkdir()
    (place / name).symlink_to(place / "elsewhere")
    Store(place).close()
