"""A real browser for tests of pages (the fixture `browser` of conftest.py).

Such tests are skipped where Playwright or a browser is missing, unless ANNOTATOR_REQUIRE_BROWSER=1.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
except ModuleNotFoundError:
    Axe = Browser = Locator = Page = Route = expect = sync_playwright = None

__all__ = [
    "Browser", "Locator", "Page", "Route", "accessibility_faults", "chromium", "expect",
    "in_a_browser",
]  # fmt: skip

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PROGRAM = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

in_a_browser = pytest.mark.skipif(
    os.environ.get("ANNOTATOR_REQUIRE_BROWSER") != "1"
    and (sync_playwright is None or _PROGRAM is None),
    reason=f"playwright, axe-playwright-python or a browser ({', '.join(_NAMES)}) is not installed",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, closed at the end."""
    assert sync_playwright is not None, "a browser is required, and playwright is not installed"
    assert _PROGRAM is not None, f"a browser is required, and there is none: {', '.join(_NAMES)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PROGRAM, args=_FLAGS)
        yield browser
        browser.close()


def accessibility_faults(page: Page, *rules: str) -> list[str]:
    """What axe-core finds wrong with a page as it is now: rules, and where they are broken."""
    options = {"runOnly": list(rules)} if rules else None
    found = Axe().run(page, options=options).response["violations"]
    return [f"{one['id']}: {node['target']}" for one in found for node in one["nodes"]]
