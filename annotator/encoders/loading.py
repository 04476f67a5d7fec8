"""What loading an encoder has in common: clear errors, missing packages, an absent hub."""

from __future__ import annotations

import importlib.util
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from annotator.errors import AnnotatorError, first_line
from index.distribution import pip_install

_REACHED_WITHIN_S = 5


def need(package: str, name: str, extra: str) -> None:
    """Check that a package is installed.

    Raises:
        AnnotatorError: It is not; the hint names the extra that brings it.
    """
    if importlib.util.find_spec(package) is None:
        raise AnnotatorError(
            f"The encoder {name} needs {package}, which is not installed.", pip_install(extra)
        )


_CHECK = "Check the name and the files."
_REPOSITORIES = (
    "A repository of transformers is transformers:ORG/MODEL, one of open_clip hf-hub:ORG/MODEL, "
    "one of timm timm:hf-hub:ORG/MODEL."
)


@contextmanager
def explained(name: str, hint: str = _CHECK) -> Iterator[None]:
    """Turn the many ways in which a download or a checkpoint fails into one clear error."""
    try:
        yield
    except AnnotatorError:
        raise
    except Exception as error:
        raise AnnotatorError(
            f"The encoder {name} could not be loaded: {first_line(error)}", hint
        ) from error


@contextmanager
def hub(name: str) -> Iterator[None]:
    """As `explained`, for what may come from a hub. One that cannot be reached is not asked: only
    its cache is. Its client would try for half a minute, once a file.
    """
    import huggingface_hub.constants as settings

    host = _host(settings.ENDPOINT)
    if settings.HF_HUB_OFFLINE or _reachable(*host):
        hint = f"{_CHECK} Weights that are not on disk come over the network. {_REPOSITORIES}"
        with explained(name, hint):
            yield
        return
    settings.HF_HUB_OFFLINE = True
    try:
        hint = f"{host[0]} cannot be reached over the network, and nothing of that name is in its "
        with explained(name, f"{hint}cache on disk. {_REPOSITORIES}"):
            yield
    finally:
        settings.HF_HUB_OFFLINE = False


def _host(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


def _reachable(host: str, port: int) -> bool:
    """Whether a host answers; taken for granted behind a proxy."""
    if urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return True
    try:
        socket.create_connection((host, port), timeout=_REACHED_WITHIN_S).close()
    except OSError:
        return False
    return True
