"""Setting of the C library's memory allocator, worth a third of the encoder's speed."""

from __future__ import annotations

import contextlib
import ctypes


def keep_freed_memory() -> None:
    """Let glibc keep the memory of tensors that were freed, for the next ones.

    By default glibc gives blocks of over 128 KiB (later: up to 32 MiB) back to the kernel at once.
    A network's intermediate results are such blocks: each batch then pays for fresh, zeroed pages,
    which can take a third of the time. Memory that threads share (one arena) is kept more readily
    than one of each thread's own; threads that exist already stay with theirs, so the command line
    calls this before anything else. Does nothing where the C library is another one.
    """
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8  # from malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 1 << 30)
        libc.mallopt(m_arena_max, 1)
