"""The distribution's name (`annotator` on PyPI is another project), and install hints."""

from __future__ import annotations

DISTRIBUTION = "cui-annotator"


def pip_install(extra: str) -> str:
    """The command that installs an extra, such as `pip install "cui-annotator[cpu]"`."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'
