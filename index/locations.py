"""Parse a path or an address to the location of an index, a folder or a Milvus server.

For example concept-index, milvus://HOST:PORT/NAME, or milvus+https:// for TLS.
"""

from __future__ import annotations

from pathlib import Path

from index.errors import IndexProblem
from index.folder.location import FolderLocation
from index.milvus.address import SCHEMES
from index.protocols import IndexLocation


def locate(where: str | Path | IndexLocation) -> IndexLocation:
    """Return the location of an index by its path or address.

    Raises:
        IndexProblem: The address is malformed or of an unknown scheme.
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
    """Return whether a text is the address of an index on a server."""
    scheme, separator, _ = where.partition("://")
    return bool(separator) and scheme in SCHEMES
