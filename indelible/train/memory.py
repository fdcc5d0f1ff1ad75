"""Freed memory stays with the process, for the next training step takes it again a moment later.

glibc gives blocks from some megabytes on, and the top of its heap, back to the kernel as soon as they are free; taken
again, every page is zeroed and mapped anew. Chunks of a head are of just that size: at pico this was a fifth of a step
(docs/performance.md).
"""

import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 2**30  # free bytes at the top of the heap that are not given back
LARGEST_BYTES = 2**25  # a block up to this size comes from the heap; the largest that glibc takes


@functools.cache
def keep_freed_memory() -> bool:
    """Sets glibc's thresholds for this process, once; changes no number that is computed.

    Returns:
        Whether the C library has them; others (musl, macOS) are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, LARGEST_BYTES))
