"""`python -m annotator` is the `annotator` command."""

from __future__ import annotations

from annotator.cli import main

main()
