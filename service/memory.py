"""The memory that images take while they are decoded, in sum."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading
from collections import deque
from collections.abc import Callable

# Larger claims than this share of all wait for those that came before them, and leave as much to
# small ones, so that two large images do not keep everybody else out.
_SMALL_SHARE = 16
# What is free again is given back to the system after an image that may have taken so much, and
# after so much in all: it takes milliseconds.
_TRIM_ONE, _TRIM_ALL = 256 << 20, 2 << 30


class NoRoom(Exception):
    """There is no room for the memory that an image takes.

    Args:
        wanted: That memory, in bytes.
    """

    def __init__(self, wanted: int) -> None:
        super().__init__(wanted)
        self.wanted = wanted


class DecodingMemory:
    """A budget of bytes, claimed in threads that decode and waited for in the event loop.

    A sixteenth is kept for small claims. Of larger ones, those that want more than the rest count
    as the rest: such an image is decoded with small ones alone.

    Args:
        most: Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._small = most // _SMALL_SHARE
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._since_trim = 0
        self.used = 0

    async def wait_for(self, wanted: int) -> Claim:
        """Claim bytes as soon as there is room for them."""
        claim = Claim(self)
        done = asyncio.get_running_loop().create_future()
        wanted = self._counted(wanted)
        with self._lock:
            self._waiting.append((wanted, done))
        self._serve()
        try:
            await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled():
                self._give(wanted)
            raise
        claim.bytes = wanted
        return claim

    def take(self, claim: Claim, wanted: int) -> None:
        """Raise a claim to this many bytes, from any thread.

        Raises:
            NoRoom: There is no room for the increase, or others have waited longer for it.
        """
        wanted = self._counted(wanted)
        with self._lock:
            more = wanted - claim.bytes
            if more <= 0:
                return
            must_wait = bool(self._waiting) and more > self._small
            if must_wait or not self._has_room(wanted, more):
                raise NoRoom(wanted)
            self.used += more
            claim.bytes = wanted

    def release(self, claim: Claim) -> None:
        """Give a claim back, in the event loop."""
        given, claim.bytes = claim.bytes, 0
        self._give(given)

    def trim(self, claim: Claim) -> None:
        """Give free memory back to the system now and then, in a thread that has decoded.

        The allocator keeps what was freed in pieces, which after large images is gigabytes; and
        some decoders leave pictures in cycles that only the collector finds.
        """
        with self._lock:
            self._since_trim += claim.bytes
            if claim.bytes < _TRIM_ONE and self._since_trim < _TRIM_ALL:
                return
            self._since_trim = 0
        give_back()

    def _counted(self, wanted: int) -> int:
        return min(wanted, self._most - self._small)

    def _has_room(self, wanted: int, more: int) -> bool:
        """Whether a claim of `wanted` bytes in all can be raised by `more`."""
        kept = self._small if wanted > self._small else 0
        return self.used + more <= self._most - kept

    def _give(self, given: int) -> None:
        with self._lock:
            self.used -= given
        self._serve()

    def _serve(self) -> None:
        with self._lock:
            while self._waiting:
                wanted, done = self._waiting[0]
                if not done.done():
                    if not self._has_room(wanted, wanted):
                        break
                    self.used += wanted
                    done.set_result(None)
                self._waiting.popleft()


class Claim:
    """The bytes that one image holds of a `DecodingMemory`."""

    def __init__(self, memory: DecodingMemory) -> None:
        self._memory = memory
        self.bytes = 0

    def grow(self, wanted: int) -> None:
        """Raise it to this many bytes.

        Raises:
            NoRoom: As `DecodingMemory.take`.
        """
        self._memory.take(self, wanted)


_malloc_trim: Callable[[int], int] | None
try:
    _malloc_trim = ctypes.CDLL(None).malloc_trim  # of the GNU C library
except (AttributeError, OSError):
    _malloc_trim = None


def give_back() -> None:
    """Give free memory back to the system."""
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)
