"""Addresses such as milvus://localhost:19530/radiology."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from index.errors import IndexProblem

TOKEN = "ANNOTATOR_MILVUS_TOKEN"
SCHEMES = ("milvus", "milvus+https")  # the second speaks TLS
_PORT = 19530
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_HINT = "Write milvus://HOST:PORT/NAME, with NAME of letters, digits and _."


@dataclass(frozen=True)
class Address:
    """Address of an index in Milvus.

    Attributes:
        host: Name or IP address of the server.
        port: Port of its gRPC interface.
        name: Name of the index.
        tls: Whether to speak TLS.
        database: Database of the server; "" for its default.
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
        """Parse milvus://[TOKEN@]HOST[:PORT]/NAME[?db=DATABASE]; milvus+https:// for TLS.

        Without a token in the address, that of the environment (ANNOTATOR_MILVUS_TOKEN) is taken,
        which other users of the machine do not see.

        Raises:
            IndexProblem: The address is malformed.
        """
        parts = urlsplit(text)
        name = parts.path.strip("/")
        shown = text.rpartition("@")[2]
        options = parse_qs(parts.query)
        try:
            port = parts.port or _PORT
        except ValueError as error:
            raise IndexProblem(f"{shown}: the port is not a number up to 65535.", _HINT) from error
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise IndexProblem(f"{shown} names no server.", _HINT)
        if not _NAME.fullmatch(name):
            raise IndexProblem(f"{shown}: {name!r} cannot be the name of an index.", _HINT)
        if set(options) - {"db"}:
            raise IndexProblem(f"{shown}: the only option is ?db=DATABASE.", _HINT)
        token = unquote(parts.netloc.rpartition("@")[0]) or os.environ.get(TOKEN, "")
        database = options.get("db", [""])[0]
        return cls(parts.hostname, port, name, parts.scheme == SCHEMES[1], database, token)

    @property
    def uri(self) -> str:
        """The server's address as pymilvus takes it."""
        return f"{'https' if self.tls else 'http'}://{self._server}"

    def __str__(self) -> str:
        database = f"?db={self.database}" if self.database else ""
        return f"{SCHEMES[self.tls]}://{self._server}/{self.name}{database}"

    @property
    def _server(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
