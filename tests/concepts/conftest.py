from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Conso = Callable[..., str]


def _conso(
    cui: str,
    name: str,
    *,
    lat: str = "ENG",
    ts: str = "P",
    stt: str = "PF",
    ispref: str = "Y",
    suppress: str = "N",
    source: str = "MSH",
) -> str:
    """A row of MRCONSO.RRF."""
    return (
        f"{cui}|{lat}|{ts}|L0000001|{stt}|S0000001|{ispref}|A0000001||M1|D1|{source}|MH|D1|{name}"
        f"|0|{suppress}|256|\n"
    )


@pytest.fixture(scope="session")
def conso() -> Conso:
    return _conso


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_text(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_text
