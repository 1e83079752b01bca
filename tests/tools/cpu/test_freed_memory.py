"""What a large block leaves behind when it is freed, in a process that is started as workers that compute are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.tools.cpu.settings import COMPUTING

pytestmark = pytest.mark.heavy

SCRIPT = """
import resource, sys
from tunesmith.tools.cpu.freed_memory import return_large_blocks

def held_mib():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

if sys.argv[1] == "returned":
    return_large_blocks()
before = held_mib()
large, small = bytearray(b"x" * (64 << 20)), bytearray(b"x" * (1 << 20))
del large
print(held_mib() - before)
"""


def left_mib(how: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", SCRIPT, how], env={**os.environ, **COMPUTING}, text=True))


PAGES = """
import ctypes, mmap, os, sys
from tunesmith.tools.cpu.freed_memory import leave_pages

def held_mib():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE >> 20

with open(sys.argv[1], "wb") as file:
    file.write(bytes(range(256)) * (32 << 12))
    file.flush()
    os.fdatasync(file.fileno())
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
before, total = held_mib(), sum(pages[::mmap.PAGESIZE])
read = held_mib() - before
own = (ctypes.c_char * (4 << 20)).from_buffer(bytearray(b"x" * (4 << 20)))
leave_pages(ctypes.addressof(own), len(own))
leave_pages(ctypes.addressof(ctypes.c_char.from_buffer(pages)), len(pages))
print(read, held_mib() - before, own.raw.count(b"x") == len(own), pages[1000] == 1000 % 256)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MADV_PAGEOUT is Linux's")
def test_pages_of_a_file_are_left_and_read_again_and_other_memory_keeps_what_it_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PAGES, str(tmp_path / "file")]
    read, held, own_kept, file_kept = subprocess.check_output(command, text=True).split()
    assert (own_kept, file_kept) == ("True", "True")
    assert int(read) >= 30 and int(held) < 16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator is glibc's")
def test_a_large_block_goes_back_although_another_lies_behind_it() -> None:
    assert left_mib("returned") < 16
    assert left_mib("kept") >= 64, "the settings keep freed blocks: without it there is nothing to show"
