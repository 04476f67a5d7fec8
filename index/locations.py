"""Where an index can lie: in a folder (`index.folder`), or on a server (`index.milvus`).

Such as concept-index, or milvus://HOST:PORT/NAME; milvus+https:// by TLS.
"""

from __future__ import annotations

from pathlib import Path

from index.errors import IndexProblem
from index.folder.location import FolderLocation
from index.milvus.address import SCHEMES
from index.protocols import IndexLocation


def locate(where: str | Path | IndexLocation) -> IndexLocation:
    """The place that a path or an address names.

    Raises:
        IndexProblem: An address that cannot be read, or of a kind that is not known.
    """
    if isinstance(where, Path):
        return FolderLocation(where)
    if not isinstance(where, str):
        return where
    if is_on_server(where):
        from index.milvus.location import MilvusLocation

        return MilvusLocation.at(where)
    scheme, separator, _ = where.partition("://")
    if not separator:
        return FolderLocation(Path(where))
    raise IndexProblem(
        f"{where}: an index cannot lie at {scheme}://.",
        "Give a folder, or milvus://HOST:PORT/NAME.",
    )


def is_on_server(where: str) -> bool:
    """Whether a text is the address of an index on a server."""
    scheme, separator, _ = where.partition("://")
    return bool(separator) and scheme in SCHEMES
