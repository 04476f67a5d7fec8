"""mkdocs hook: plots and tables of benchmarks/results, which pages link to beside docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def on_files(files: Any, config: Any) -> Any:
    """Put what the benchmarks drew on the site."""
    from mkdocs.structure.files import File

    for path in sorted(RESULTS.glob("*.[pm][nd]*")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link to them where they are on the site."""
    return markdown.replace("](../benchmarks/results/", "](results/")
