"""Addresses of indexes in Milvus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import IndexProblem
from index.folder.location import FolderLocation
from index.locations import locate
from index.milvus.address import TOKEN, Address

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,50}", fullmatch=True)
HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5}){0,2}", fullmatch=True) | st.just("::1")


@given(
    HOSTS,
    st.integers(1, 65535),
    NAMES,
    st.booleans(),
    st.just("") | NAMES,
    st.just("") | st.from_regex(r"[a-z]{1,9}:[A-Za-z0-9%/@-]{1,9}", fullmatch=True),
)
def test_what_is_written_is_read(
    host: str, port: int, name: str, tls: bool, database: str, token: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(TOKEN, raising=False)
        address = Address(host, port, name, tls, database)
        assert Address.parse(str(address)) == address
        patch.setenv(TOKEN, token)
        read = Address.parse(str(address))
    assert read.token == token
    if token:
        assert token not in f"{read}{read!r}{read.uri}"


def test_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    address = Address.parse("milvus://localhost/radiology")
    assert (address.uri, address.name, address.token) == ("http://localhost:19530", "radiology", "")
    address = Address.parse("milvus+https://me%40x:p%2Fw@db.example.org:443/x?db=team")
    assert address.uri == "https://db.example.org:443"
    assert (address.token, address.database, address.tls) == ("me@x:p/w", "team", True)
    assert str(address) == "milvus+https://db.example.org:443/x?db=team"
    assert str(locate("milvus://h/x")) == "milvus://h:19530/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("milvus://", "names no server"),
        ("milvus:///x", "names no server"),
        ("milvus://host", "'' cannot be the name of an index"),
        ("milvus://host/", "'' cannot be the name"),
        ("milvus://host/a/b", "'a/b' cannot be the name"),
        ("milvus://host/7seas", "'7seas' cannot be the name"),
        ("milvus://host/" + "x" * 201, "cannot be the name"),
        ("milvus://host:0x/a", "the port is not a number"),
        ("milvus://host:65536/a", "the port is not a number"),
        ("milvus://host/a?token=secret", "the only option is"),
        ("milvus://root:secret@/a", "names no server"),
        ("milvus://root:secret@host/a-b", "'a-b' cannot be the name"),
        ("https://host/a", "an index cannot lie at https://"),
        ("pinecone://host/a", "an index cannot lie at pinecone://"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(IndexProblem, match=message) as problem:
        locate(text)
    assert "milvus://HOST:PORT/NAME" in problem.value.hint
    assert "secret" not in str(problem.value).partition("?")[0]


def test_a_folder_stays_a_folder() -> None:
    for folder in ("concept-index", "/a/b", "milvus", "a:b", "milvus:/x"):
        assert isinstance(locate(folder), FolderLocation)
