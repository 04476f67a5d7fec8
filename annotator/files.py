"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` at the end of the block, if it succeeds.

    Of a link, the file that it names is replaced.

    Raises:
        OSError: It cannot be written; `path` is as before.
    """
    path = path.resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` at the end of the block, if it succeeds.

    Raises:
        OSError: It cannot be written; `path` is as before.
    """
    path = path.resolve()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as working:
        folder, before = Path(working) / "new", Path(working) / "before"
        folder.mkdir()
        yield folder
        if path.exists():
            path.rename(before)
        folder.rename(path)
