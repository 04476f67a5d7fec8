"""Texts in tables that people open in a spreadsheet."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like it gets an apostrophe.

    Names of files and labels in words come from strangers, and a formula can send what is in a
    sheet elsewhere. Never for runs and other tables that programs read.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def as_it_was(text: str) -> str:
    """Inverse of `harmless`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
