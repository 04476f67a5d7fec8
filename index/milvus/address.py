"""Addresses such as milvus://localhost:19530/radiology."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from index.errors import IndexProblem

TOKEN = "ANNOTATOR_MILVUS_TOKEN"
SCHEMES = ("milvus", "milvus+https")  # the second by TLS
_PORT = 19530
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_HINT = "Write milvus://HOST:PORT/NAME, with NAME of letters, digits and _."


@dataclass(frozen=True)
class Address:
    """Where an index lies in Milvus.

    Attributes:
        host: Name or number of the server.
        port: Of its gRPC interface.
        name: Of the index.
        tls: Whether to speak TLS.
        database: Of the server; "" for its default.
        token: An API key or "USER:PASSWORD"; "" for none. Never shown.
    """

    host: str
    port: int
    name: str
    tls: bool = False
    database: str = ""
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read milvus://[TOKEN@]HOST[:PORT]/NAME[?db=DATABASE]; milvus+https:// for TLS.

        The token can also stand in the environment (ANNOTATOR_MILVUS_TOKEN), where other users of
        the machine do not see it.

        Raises:
            IndexProblem: It cannot be read.
        """
        parts = urlsplit(text)
        name = parts.path.strip("/")
        shown = text.rpartition("@")[2] if "@" in text else text
        try:
            port = parts.port or _PORT
        except ValueError as error:
            raise IndexProblem(f"{shown}: the port is not a number up to 65535.", _HINT) from error
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise IndexProblem(f"{shown} names no server.", _HINT)
        if not _NAME.fullmatch(name):
            raise IndexProblem(f"{shown}: {name!r} cannot be the name of an index.", _HINT)
        options = parse_qs(parts.query)
        if set(options) - {"db"}:
            raise IndexProblem(f"{shown}: the only option is ?db=DATABASE.", _HINT)
        given = unquote(parts.netloc.rpartition("@")[0])
        return cls(
            parts.hostname,
            port,
            name,
            tls=parts.scheme == "milvus+https",
            database=options.get("db", [""])[0],
            token=given or os.environ.get(TOKEN, ""),
        )

    @property
    def uri(self) -> str:
        """As pymilvus takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def __str__(self) -> str:
        database = f"?db={self.database}" if self.database else ""
        scheme = "milvus+https" if self.tls else "milvus"
        return f"{scheme}{self.uri[self.uri.index('://') :]}/{self.name}{database}"
