"""A hub that cannot be reached costs no half minute."""

from __future__ import annotations

import socket

import pytest

from annotator.encoders import loading
from annotator.encoders.loading import hub
from annotator.errors import AnnotatorError


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a hub that nobody listens at."""
    import huggingface_hub.constants as settings

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(settings, "ENDPOINT", address)
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(loading.urllib.request, "getproxies", dict)  # type: ignore[attr-defined]
        return address


def test_a_hub_that_is_not_there_is_not_asked(endpoint: str) -> None:
    import huggingface_hub.constants as settings

    with pytest.raises(AnnotatorError, match="The encoder it could not be loaded: no") as error:  # noqa: SIM117
        with hub("it"):
            assert settings.HF_HUB_OFFLINE
            raise OSError("no")
    assert "127.0.0.1 cannot be reached" in error.value.hint
    assert not settings.HF_HUB_OFFLINE


def test_one_that_answers_is_asked(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as settings

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(settings, "ENDPOINT", address)
        with hub("it"):
            assert not settings.HF_HUB_OFFLINE


def test_behind_a_proxy_it_is_taken_to_answer(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as settings

    proxies = {"https": "http://proxy:3128"}
    monkeypatch.setattr(loading.urllib.request, "getproxies", lambda: proxies)  # type: ignore[attr-defined]
    monkeypatch.setenv("no_proxy", "")
    with hub("it"):
        assert not settings.HF_HUB_OFFLINE
