"""API keys: whose they are, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from annotator.errors import AnnotatorError
from service.settings import Settings

MIN_KEY_LENGTH = 16


#: Where Label Studio finds its back end: it knows no other way to send a key than HTTP Basic.
LABEL_STUDIO = "/label-studio"
WEBHOOK = f"{LABEL_STUDIO}/webhook"

#: What a key may do; each may do what those before it may, too.
ROLES = ("read", "annotate", "correct")
_OF_A_BARE_KEY = "annotate"
_READS = ("GET", "HEAD", "OPTIONS")


class Caller(NamedTuple):
    """Who calls: the name of a key or in a token, and its role; "" for none."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether the caller's role is this one, or one that may do more."""
        return self.role in ROLES and ROLES.index(self.role) >= ROLES.index(role)


class Keys:
    """The accepted API keys, as hashes.

    Args:
        keys: "KEY", "ROLE:KEY" or "ROLE:KEY NAME" each.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._callers: list[tuple[bytes, Caller]] = []
        for line in keys:
            role, key, name = parse_key(line)
            digest = _digest(key.encode())
            self._callers.append((digest, Caller(name or f"key {digest.hex()[:8]}", role)))

    def caller(self, key: bytes) -> Caller | None:
        """Who has a key, in constant time; None for nobody."""
        digest = _digest(key)
        found: Caller | None = None
        for known, caller in self._callers:
            if hmac.compare_digest(digest, known):
                found = caller
        return found

    def have(self, role: str) -> bool:
        """Whether there is a key with this role."""
        return any(caller.role == role for _, caller in self._callers)

    def replace_by(self, other: Keys) -> None:
        """Accept the keys of another object instead."""
        self._callers = other._callers


def parse_key(line: str) -> tuple[str, str, str]:
    """Role, key and name in a line of a key file."""
    role, colon, rest = line.strip().partition(":")
    if not colon or role not in ROLES:
        return _OF_A_BARE_KEY, line.strip(), ""
    key, _, name = rest.strip().partition(" ")
    return role, key, name.strip()


def role_for(method: str, path: str) -> str:
    """The role that a request needs."""
    if method in _READS:
        return "read"
    corrects = path in ("/v1/images", WEBHOOK) or path.startswith("/v1/images/")
    return "correct" if corrects else "annotate"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(settings: Settings) -> Keys | None:
    """The keys in the file and in the environment; None if no key is asked for.

    A key may have its role before it, and then its owner's name after it: "correct:KEY Ada". A bare
    one has the role annotate.

    Raises:
        AnnotatorError: The file cannot be read, strangers can read or change it, there is no key,
            or a key is too short or malformed.
    """
    keys = []
    if settings.api_key_file is not None:
        keys += _keys_in_file(settings.api_key_file)
    if settings.api_keys is not None:
        parts = map(str.strip, re.split(r"[,\n]", settings.api_keys.get_secret_value()))
        given = [(f"key {i}", part) for i, part in enumerate(filter(None, parts), 1)]
        keys += _checked("ANNOTATOR_API_KEYS", given)
    return Keys(keys) if settings.has_keys else None


def _keys_in_file(path: Path) -> list[str]:
    """One key a line; empty lines and comments (#) are skipped."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AnnotatorError(
            f"{path} cannot be read: {error.strerror}.",
            f"Make one: (umask 077; openssl rand -hex 32 > {path})",
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotatorError(f"{path} is not text.", "Write one key a line.") from error
    # Its group may read it: so the secrets of a cluster are given to a process.
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise AnnotatorError(
            f"{path} holds API keys, and users other than its owner may change it, or others than "
            "its group read it.",
            f"chmod 600 {path} (or 640)",
        )
    lines = [(f"line {i}", line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return _checked(str(path), [pair for pair in lines if pair[1] and pair[1][0] != "#"])


def _checked(source: str, given: Sequence[tuple[str, str]]) -> list[str]:
    """Keys, each with its place; never quoted, since these messages end up in logs."""
    for place, line in given:
        _, key, name = parse_key(line)
        if len(key) < MIN_KEY_LENGTH:
            raise AnnotatorError(
                f"{source}, {place}: the key has fewer than {MIN_KEY_LENGTH} characters.",
                "Make one: openssl rand -hex 32",
            )
        if not (key.isascii() and key.isprintable() and name.isprintable()) or " " in key:
            raise AnnotatorError(
                f"{source}, {place}: a key is of printable ASCII characters without spaces.",
                "Make one: openssl rand -hex 32",
            )
    if not given:
        raise AnnotatorError(f"{source} holds no key.", "Give one: openssl rand -hex 32")
    return [line for _, line in given]
