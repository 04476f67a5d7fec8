"""Images of Label Studio's tasks, fetched from its host and from nowhere else."""

from __future__ import annotations

import asyncio
import http.client
import json
import posixpath
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote, urlsplit

from annotator.errors import ImageError

_THREADS = 4
_CHUNK = 1 << 16
_SILENCE_SECONDS = 10.0  # between two pieces of an answer
_MOST_SECONDS = 30.0  # for an answer
_MOST_JSON = 1 << 16
_TOKEN_SECONDS = 240.0  # that an access token is used; it is good for 300
# Where it serves files. The token opens all else, too, which no task may ask for.
_FILES = ("/data/", "/storage-data/")
_ELSEWHERE = (
    "its address is not on the host of Label Studio",
    "Upload the images to Label Studio, or serve them by its local storage.",
)


class LabelStudioHost:
    """Fetches files that Label Studio serves. Use as a context manager.

    A task names its image by an address, and whoever may write tasks may write any: the service
    would be made to call whatever it can reach (SSRF). So nothing is asked but this host, there
    nothing but files, and no redirection is followed.

    Args:
        url: Of Label Studio.
        token: A personal access token or a legacy token; "" for none.
        most_bytes: Of a file.
    """

    def __init__(self, url: str, token: str, most_bytes: int) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._base = parts.path.rstrip("/")
        self._token = token
        self._most = most_bytes
        self._lock = threading.Lock()
        self._access: tuple[str, float] | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "label-studio")

    def __enter__(self) -> LabelStudioHost:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def fetch(self, address: str) -> bytes:
        """Fetch a file.

        Args:
            address: As a task has it: a path, or a URL.

        Raises:
            ImageError: It is elsewhere, too large, or cannot be fetched.
        """
        path = self.path_of(address)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, path)

    def path_of(self, address: str) -> str:
        """The path and query of a file on this host.

        Raises:
            ImageError: The address is of something else.
        """
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise ImageError("its address is none", _ELSEWHERE[1]) from None
        if parts.scheme or parts.netloc:
            default = 443 if self._secure else 80
            same = (parts.scheme == "https") == self._secure and parts.scheme in ("http", "https")
            same = same and (parts.hostname or "") == self._host
            if not same or (port or default) != (self._port or default):
                raise ImageError(*_ELSEWHERE)
        path = parts.path
        below = path.removeprefix(self._base) if path.startswith(f"{self._base}/") else path
        plain = unquote(below)
        if not below.startswith(_FILES) or posixpath.normpath(plain) != plain.rstrip("/"):
            raise ImageError(*_ELSEWHERE)
        whole = f"{self._base}{below}" + (f"?{parts.query}" if parts.query else "")
        if not (whole.isascii() and whole.isprintable()) or " " in whole:
            raise ImageError("its address is not percent-encoded", "Encode it (RFC 3986).")
        return whole

    def _fetch(self, path: str) -> bytes:
        status, data = self._request("GET", path, self._authorization(), self._most)
        if status == 200:
            return data
        if status in (301, 302, 303, 307, 308, 401, 403):
            raise ImageError(
                f"Label Studio does not give it to us ({status})",
                "Set ANNOTATOR_LABEL_STUDIO_TOKEN to the access token of a user who may see it.",
            )
        raise ImageError(f"Label Studio answers {status}", "Check that the file is there.")

    def _authorization(self) -> str:
        """The header that opens files: by a legacy token, or by what a personal one is good for."""
        if not self._token:
            return ""
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        with self._lock:
            if self._access is None or time.monotonic() > self._access[1]:
                body = json.dumps({"refresh": self._token})
                path = f"{self._base}/api/token/refresh"
                status, data = self._request("POST", path, "", _MOST_JSON, body)
                try:
                    access = str(json.loads(data)["access"]) if status == 200 else ""
                except (ValueError, KeyError, TypeError):
                    access = ""
                if not access:
                    raise ImageError(
                        f"Label Studio does not take our access token ({status})",
                        "Set ANNOTATOR_LABEL_STUDIO_TOKEN to one that is valid.",
                    )
                self._access = access, time.monotonic() + _TOKEN_SECONDS
            return f"Bearer {self._access[0]}"

    def _request(
        self, method: str, path: str, authorization: str, most: int, body: str | None = None
    ) -> tuple[int, bytes]:
        """Status and body of an answer; of another status than 200 no body."""
        end = time.monotonic() + _MOST_SECONDS
        headers = {"Authorization": authorization} if authorization else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(
                self._host,
                self._port,
                timeout=_SILENCE_SECONDS,
                context=ssl.create_default_context(),
            )
        else:
            connection = http.client.HTTPConnection(
                self._host, self._port, timeout=_SILENCE_SECONDS
            )
        try:
            connection.request(method, path, body, headers)
            with connection.getresponse() as answer:
                if answer.status != 200:
                    return answer.status, b""
                return answer.status, _read(answer, most, end)
        except TimeoutError:
            raise ImageError("Label Studio does not answer in time", "Try again.") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ImageError(f"Label Studio cannot be reached: {reason}", "Try again.") from None
        finally:
            connection.close()


def _read(answer: http.client.HTTPResponse, most: int, end: float) -> bytes:
    """A body of at most so many bytes, all of it before `end` on the monotonic clock."""
    data = bytearray()
    while chunk := answer.read1(_CHUNK):
        data += chunk
        if len(data) > most:
            raise ImageError(
                f"over the limit of {most} bytes",
                "Scale the image down or leave it out.",
                "too_large",
            )
        if time.monotonic() > end:
            raise TimeoutError
    if answer.length:
        raise ImageError("Label Studio's answer is cut off", "Try again.", "broken")
    return bytes(data)
