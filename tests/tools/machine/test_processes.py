"""A process is over when its last thread is: until then its memory is taken, whatever its first thread looks like."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.fixtures.waiting import wait_for
from tunesmith.tools.machine.processes import ProcessId

FIRST_THREAD_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.buffer.raw.read).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
"""


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="60 is exit there alone")
def test_a_zombie_whose_other_threads_are_at_work_has_not_let_go() -> None:
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdin=pipe, stdout=pipe, text=True)
    assert child.stdin and child.stdout and child.stdout.readline() == "ready\n"
    process = ProcessId.of(child.pid)
    wait_for(lambda: not process.alive())
    assert not process.has_let_go()
    child.stdin.close()  # which is what the other thread waits for
    wait_for(process.has_let_go)
    child.wait()
    assert process.has_let_go()


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    me = ProcessId.of(os.getpid())
    assert me.alive() and me.ticks is not None
    assert not replace(me, ticks=me.ticks - 1).alive() and not replace(me, boot_id="an earlier boot").alive()
