"""A setting of the whole process that several threads need at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class SharedSetting:
    """Changes a setting for as long as anyone needs it.

    Use as a context manager, from any number of threads: the first of several users changes the
    setting, the last one restores it.

    Args:
        change: Changes it, and returns what restores it.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._restore = self._change()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore()
