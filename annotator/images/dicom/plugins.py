"""Decoding of compressed frames with pydicom's plug-ins, in processes of their own.

A single changed byte makes some of these libraries abort the process. Starting one takes about half
a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from annotator.images.dicom.attributes import EXPORT_HINT
from index.distribution import pip_install

if TYPE_CHECKING:
    from io import BufferedReader

_SECONDS_PER_FRAME = 60
# The plug-ins that are tried, in this order. pylibjpeg-libjpeg fills up what it cannot decode, so
# it comes last and is not asked for JPEG-LS; GDCM knows no JPEG of 12 bits.
_PLUGINS = {
    "JPEGExtended12Bit": ("pylibjpeg",),
    "JPEGLossless": ("gdcm", "pylibjpeg"),
    "JPEGLSLossless": ("pyjpegls", "gdcm"),
    "JPEG2000": ("pylibjpeg", "gdcm"),
    "HTJ2K": ("pylibjpeg",),
}
# The packages that bring the first of them.
_PACKAGES = {
    "JPEGExtended12Bit": "pylibjpeg-libjpeg",
    "JPEGLossless": "python-gdcm",
    "JPEGLSLossless": "pyjpegls",
    "JPEG2000": "pylibjpeg-openjpeg",
    "HTJ2K": "pylibjpeg-openjpeg",
}


@dataclass(frozen=True)
class Request:
    """A frame to decode.

    Attributes:
        frame: Compressed.
        syntax: Its transfer syntax, as a keyword of `pydicom.uid`.
        description: Of its pixels: options of pydicom's `Decoder.as_array`.
        shape: [rows, columns] or [rows, columns, samples] of the result.
    """

    frame: bytes
    syntax: str
    description: Mapping[str, Any]
    shape: tuple[int, ...]


def available_plugins(syntax: str) -> list[str]:
    """The installed plug-ins to try on a transfer syntax, see `codestreams.Codestream`."""
    available = _decoder(syntax).available_plugins
    return [plugin for plugin in _PLUGINS[syntax] if plugin in available]


def install_hint(syntax: str) -> str:
    """What to install for a transfer syntax; that the file may be corrupt if it is installed."""
    if _PLUGINS[syntax][0] in available_plugins(syntax):
        return f"It may be corrupt. {EXPORT_HINT}"
    return f"Install {_PACKAGES[syntax]} with: {pip_install('dicom')}"


def _decoder(syntax: str) -> Any:
    import pydicom.uid
    from pydicom.pixels.decoders.base import get_decoder

    return get_decoder(getattr(pydicom.uid, syntax))


class Workers:
    """Processes with a plug-in each, which start when they are needed; a context manager."""

    def __init__(self) -> None:
        self._running: dict[str, _Worker] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def decode(self, request: Request, plugins: Iterable[str]) -> NDArray[Any] | None:
        """Decode a frame with the first plug-in that can; None where none can."""
        for plugin in plugins:
            if plugin not in self._running:
                self._running[plugin] = self._stack.enter_context(_Worker(plugin))
            values = self._running[plugin].decode(request)
            if values is not None:
                return values
            if not self._running[plugin].is_alive():
                del self._running[plugin]
        return None


class _Worker:
    """A process that decodes frames with one plug-in; a context manager, which ends it."""

    def __init__(self, plugin: str) -> None:
        # -P: the script's folder must not get in the way of modules of the standard library.
        command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), plugin]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):  # it ended with part of a frame unread
            self._process.__exit__(None, None, None)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, request: Request) -> NDArray[Any] | None:
        """The decoded frame; None if it cannot be decoded, and perhaps took the process down."""
        timer = Timer(_SECONDS_PER_FRAME, self._process.kill)
        timer.start()
        try:
            return self._decode(request)
        except (EOFError, OSError, ValueError):
            self._process.kill()
            self._process.wait()
            return None
        finally:
            timer.cancel()

    def _decode(self, request: Request) -> NDArray[Any] | None:
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None and sink is not None
        head = {
            "length": len(request.frame),
            "syntax": _decoder(request.syntax).UID,
            "description": request.description,
        }
        sink.write(json.dumps(head).encode() + b"\n" + request.frame)
        sink.flush()
        answer = json.loads(source.readline())
        if answer["dtype"] is None:
            return None
        values: NDArray[Any] = np.empty(request.shape, answer["dtype"])
        if cast("BufferedReader", source).readinto(values.data.cast("B")) < values.nbytes:
            raise EOFError
        return values
