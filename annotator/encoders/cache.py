"""Cache of image vectors by content hash and encoder fingerprint, in one SQLite file.

A killed build continues from it, and the next build embeds only what is new.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.images.notes import NOTES, Note

CACHE_FILE = "embeddings.sqlite"  # beside the versions of an index
_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_PATIENCE = 60.0  # seconds that another process may keep the file locked


def content_key(data: bytes) -> bytes:
    """sha256 of an image file's bytes: a renamed file is not embedded again."""
    return hashlib.sha256(data).digest()


def is_unit_vector(vector: NDArray[np.float32], dim: int) -> bool:
    """Whether a cached vector can be one of an encoder: of its length, finite and of unit norm."""
    return vector.shape == (dim,) and bool(abs(np.dot(vector, vector) - 1) < 1e-3)


class EmbeddingCache:
    """Vectors of one fingerprint in a SQLite file that several fingerprints may share.

    Safe for many threads, and for several processes on one file. A vector whose checksum does not
    match is treated as absent.

    Args:
        path: Created with its folder if it is not there.
        fingerprint: Digest of the encoder's fingerprint.

    Raises:
        AnnotatorError: The file cannot be opened or is not such a cache.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._fingerprint = bytes.fromhex(fingerprint)
        self._lock = threading.Lock()
        self._writable = True
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
            try:
                _set_up(self._db)
            except sqlite3.Error:
                self._db.close()
                raise

    def get(self, content: bytes, dim: int | None = None) -> NDArray[np.float32] | None:
        """The vector of this content key; None if it is absent or damaged.

        Args:
            content: The key.
            dim: What is no unit vector of this length counts as damaged; None takes any.
        """
        with self._lock, self._explained():
            row = self._db.execute(
                "SELECT checksum, vector FROM vectors WHERE fingerprint = ? AND content = ?",
                (self._fingerprint, content),
            ).fetchone()
        if row is None:
            return None
        checksum, blob = row
        if not isinstance(blob, bytes) or zlib.crc32(blob) != checksum:
            return None
        vector = np.frombuffer(blob, dtype="<f4").astype(np.float32)
        return vector if dim is None or is_unit_vector(vector, dim) else None

    def content_of(self, name: str) -> bytes | None:
        """The content key of a name that was remembered; None if there is none."""
        with self._lock, self._explained():
            row = self._db.execute(
                "SELECT content FROM names WHERE name = ?", (content_key(name.encode()),)
            ).fetchone()
        return None if row is None or not isinstance(row[0], bytes) else row[0]

    def remember(self, contents: Mapping[str, bytes]) -> None:
        """Remember content keys by names that stand for the same bytes for ever.

        An image with such a name need not be read again. Names are kept as hashes.
        """
        if not self._writable or not contents:
            return
        rows = [(content_key(name.encode()), content) for name, content in contents.items()]
        with self._lock, self._explained():
            self._write(("INSERT OR REPLACE INTO names VALUES (?, ?)", rows))

    def contents(self) -> list[bytes]:
        """Content keys with a vector; some vectors may turn out to be damaged."""
        with self._lock, self._explained():
            rows = self._db.execute(
                "SELECT content FROM vectors WHERE fingerprint = ?", (self._fingerprint,)
            )
            return [content for (content,) in rows]

    def notes(self, content: bytes) -> tuple[Note, ...]:
        """What was done to the picture of this content key that its file did not ask for."""
        with self._lock, self._explained():
            row = self._db.execute(
                "SELECT notes FROM notes WHERE fingerprint = ? AND content = ?",
                (self._fingerprint, content),
            ).fetchone()
        given = str(row[0]).split() if row is not None else []
        return tuple(note for note in NOTES if note in given)

    def put(
        self,
        items: Iterable[tuple[bytes, NDArray[np.float32]]],
        notes: Mapping[bytes, tuple[Note, ...]] | None = None,
    ) -> None:
        """Store vectors, and notes on their pictures, by content key in one transaction.

        Vectors of blank images are not stored, since the next run may not allow those. Where
        nothing can be written (a full disk), a warning says so once, and nothing more is stored:
        what was to be embedded is embedded all the same.
        """
        if not self._writable:
            return
        notes = notes or {}
        blank = {content for content, codes in notes.items() if "blank" in codes}
        noted = [
            (self._fingerprint, content, " ".join(codes))
            for content, codes in notes.items()
            if codes and content not in blank
        ]
        rows = []
        for content, vector in items:
            if content in blank:
                continue
            blob = vector.astype("<f4").tobytes()
            rows.append((self._fingerprint, content, zlib.crc32(blob), blob))
        with self._lock, self._explained():
            self._write(
                ("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows),
                ("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", noted),
            )

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """Execute statements, each on many rows, in one transaction; warn if that cannot be."""
        try:
            with self._db:
                for statement, rows in statements:
                    self._db.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _UNWRITABLE:
                raise
            self._writable = False
            warnings.warn(
                f"The embedding cache {self.path} cannot be written ({error}): vectors are not "
                "kept for the next run.",
                RuntimeWarning,
                stacklevel=3,
            )

    def forget(self, contents: Iterable[bytes]) -> None:
        """Delete the vectors of these content keys, of every encoder, and overwrite their bytes."""
        with self._lock, self._explained():
            self._db.execute("PRAGMA secure_delete=ON")
            keys = [(content,) for content in contents]
            with self._db:
                self._db.executemany("DELETE FROM vectors WHERE content = ?", keys)
                self._db.executemany("DELETE FROM notes WHERE content = ?", keys)
                self._db.executemany("DELETE FROM names WHERE content = ?", keys)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> EmbeddingCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into one that names the file."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise AnnotatorError(
                f"The embedding cache {self.path} cannot be used: {error}",
                "Delete the file (vectors are computed again), or run with --no-cache.",
            ) from error


def _set_up(database: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")  # safe against a killed process
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (fingerprint BLOB, content BLOB, "
                "checksum INTEGER, vector BLOB, PRIMARY KEY (fingerprint, content)) WITHOUT ROWID"
            )
            database.execute(
                "CREATE TABLE IF NOT EXISTS notes (fingerprint BLOB, content BLOB, notes TEXT, "
                "PRIMARY KEY (fingerprint, content)) WITHOUT ROWID"
            )
            database.execute(
                "CREATE TABLE IF NOT EXISTS names (name BLOB PRIMARY KEY, content BLOB) "
                "WITHOUT ROWID"
            )
            return
        except sqlite3.OperationalError as error:
            # SQLite's own waiting does not cover the change to WAL: it fails at once if another
            # process makes it at the same moment.
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
