"""Freed memory stays with the process: after the first step, buffers cost no page faults."""

import resource
import subprocess
import sys

import pytest

LOOP = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from runs.memory import keep_freed_memory
    assert keep_freed_memory()
def step():
    arrays = [np.ones(16 << 20, np.uint8) for _ in range(4)]
    return sum(int(array[-1]) for array in arrays)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", LOOP, mode], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_buffers_are_used_again_without_page_faults():
    pages = 5 * 4 * (16 << 20) // resource.getpagesize()
    assert _faults("kept") < pages / 100
