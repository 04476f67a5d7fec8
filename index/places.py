"""The places where an index can lie: a folder (`index.local`), or a server (`index.milvus`).

Such as concept-index, or milvus://HOST:PORT/NAME; milvus+https:// by TLS.
"""

from __future__ import annotations

from pathlib import Path

from index.errors import IndexProblem
from index.local import LocalPlace
from index.milvus.address import SCHEMES
from index.place import Place


def place_of(where: str | Path | Place) -> Place:
    """The place that a path or an address names.

    Raises:
        IndexProblem: An address that cannot be read, or of a kind that is not known.
    """
    if isinstance(where, Path):
        return LocalPlace(where)
    if not isinstance(where, str):
        return where
    if is_on_server(where):
        from index.milvus.place import MilvusPlace

        return MilvusPlace.at(where)
    scheme, separator, _ = where.partition("://")
    if not separator:
        return LocalPlace(Path(where))
    raise IndexProblem(
        f"{where}: an index cannot lie at {scheme}://.",
        "Give a folder, or milvus://HOST:PORT/NAME.",
    )


def is_on_server(where: str) -> bool:
    """Whether a text is the address of an index on a server."""
    scheme, separator, _ = where.partition("://")
    return bool(separator) and scheme in SCHEMES
