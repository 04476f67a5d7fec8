"""The places where an index can lie: a folder, or a server of vectors.

concept-index                        a folder (`index.local`)
milvus://HOST:PORT/NAME              a Milvus server (`index.milvus`); milvus+https:// by TLS
"""

from __future__ import annotations

from pathlib import Path

from index.errors import IndexProblem
from index.local import LocalPlace
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
    scheme, separator, _ = where.partition("://")
    if not separator:
        return LocalPlace(Path(where))
    if scheme in ("milvus", "milvus+https"):
        from index.milvus.place import MilvusPlace

        return MilvusPlace.at(where)
    raise IndexProblem(
        f"{where}: an index cannot lie at {scheme}://.",
        "Give a folder, or milvus://HOST:PORT/NAME.",
    )
