"""Images in object stores: anything that fsspec has a file system for, by URL.

A request costs tens of milliseconds, so as few as possible are made.
"""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from annotator.errors import AnnotatorError, ImageError, first_line
from annotator.images.ref import check_file_size
from index.distribution import pip_install

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BLOCK = 4 << 20  # bytes read ahead in a large file; s3fs would take 50 MiB
_STORE_HINT = "Check the address, the credentials, and the endpoint in the environment."


def is_url(name: str) -> bool:
    """Whether a name is of an object store (``s3://bucket/key``) rather than of this machine."""
    return _URL.match(name) is not None


def list_files(url: str) -> tuple[list[str], bool]:
    """URLs of the files that a URL stands for, and whether it is one file's own.

    A prefix is searched with what is below it, hidden names left out; a pattern picks files.

    Raises:
        AnnotatorError: There is nothing of this name, or the store does not answer.
    """
    system, path = _system(url)
    with _explained(url):
        kind = _kind(system, path)
        if kind == "file":
            return [url], True
        if kind == "directory":
            found = system.find(path)
        elif glob.has_magic(path):
            entries = system.glob(path, detail=True)
            found = [name for name, info in entries.items() if info["type"] == "file"]
        else:
            raise AnnotatorError(f"no such file or prefix: {url}", _STORE_HINT)
    root = re.split(r"[*?\[]", path)[0] if kind is None else path
    return [
        system.unstrip_protocol(name)
        for name in found
        if not name.endswith("/") and not _hidden(name.removeprefix(root))
    ], False


def read_file(url: str) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: As `ImageRef.read` says.
        AnnotatorError: The package for this kind of store is not installed.
    """
    system, path = _system(url)
    try:
        info = system.info(path)
        if info["type"] != "file":
            raise ImageError("a folder, not an image", "Name the image file itself.")
        check_file_size(info.get("size") or 0)
        return bytes(system.cat_file(path))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file", "Check the path.") from None
    except PermissionError:
        raise ImageError("no permission to read the file", "Check its access rights.") from None
    except Exception as error:  # each store raises its own
        raise ImageError(f"cannot be read: {first_line(error)}", _STORE_HINT) from None


def read_start(url: str, size: int) -> bytes:
    """The first bytes of a file; none of one that cannot be read."""
    system, path = _system(url)
    try:
        return bytes(system.cat_file(path, start=0, end=size))
    except Exception:  # each store raises its own; an empty file has no first byte
        return b""


def open_file(url: str) -> Any:
    """A file object that reads on demand.

    Raises:
        AnnotatorError: The package for this kind of store is not installed.
        OSError: The file cannot be opened.
    """
    system, path = _system(url)
    try:
        return system.open(path, "rb", block_size=_BLOCK)
    except OSError:
        raise
    except Exception as error:  # each store raises its own
        raise OSError(first_line(error)) from error


def spelled(url: str) -> str:
    """A URL as `list_files` spells those below it."""
    system, path = _system(url)
    return str(system.unstrip_protocol(path))


def beside(url: str, name: str) -> str:
    """The URL of a name in the same folder; a URL stays as it is."""
    if is_url(name):
        return name
    start = _URL.match(url)
    assert start is not None
    folder = posixpath.dirname(url[start.end() :])
    return start.group() + posixpath.normpath(posixpath.join(folder, name))


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, one for all its URLs in this process, and the path in it."""
    protocol = url.partition("://")[0]
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise AnnotatorError(
            f"{protocol}:// needs a package that is not installed: {first_line(error)}.",
            pip_install("remote"),
        ) from error
    except ValueError as error:
        raise AnnotatorError(
            f"{url} cannot be used: {first_line(error)}", "Known are s3://, gs:// and others."
        ) from error
    return system, path


def _kind(system: Any, path: str) -> str | None:
    try:
        return str(system.info(path)["type"])
    except FileNotFoundError:
        return None


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn the exceptions of file systems into one error that names the URL."""
    try:
        yield
    except AnnotatorError:
        raise
    except Exception as error:
        message = f"{url} cannot be listed: {first_line(error)}"
        raise AnnotatorError(message, _STORE_HINT) from error
