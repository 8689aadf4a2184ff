"""Freed memory is kept for the next step, not given back to the system."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # <malloc.h>
_NEVER = -1
_PAD = 256 << 20


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to hold on to what is freed; false where the C library is another one.

    XLA and torch take hundreds of megabytes of buffers for a step and free them after it. By default glibc maps each
    large block anew, and the kernel clears its pages again: a fifth of a training step on a CPU. Must be called before
    the threads that allocate are started, since each would otherwise have an arena of its own.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
