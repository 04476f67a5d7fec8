"""The page in a browser: an index of phantoms to serve, and what a person does on a page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from browsing import Browser, Locator, Page, expect
from click.testing import CliRunner
from PIL import Image

from annotator.cli import cli
from annotator.phantoms import write_sample

KEY = "a-key-for-the-tests-of-the-page"


@dataclass(frozen=True)
class Served:
    """An index of phantoms, and images that are not in it."""

    index: Path
    images: list[Path]  # PNG or JPEG
    dicom: Path
    broken: Path
    noise: Path


def write_place(folder: Path) -> Served:
    sample = write_sample(folder / "sample", n=60, seed=2)
    built = CliRunner().invoke(cli, [
        "build-index", str(sample.images), str(sample.concepts),
        "--names", str(sample.concept_names), "--captions", str(sample.captions),
        "--split", str(sample.split), "--only", "train", "--groups", str(sample.patients),
        "--index", str(folder / "index"), "--k", "12", "--thumbnails",
    ])  # fmt: skip
    assert built.exit_code == 0, built.output
    with sample.split.open(encoding="utf-8", newline="") as file:
        held_out = {row[0] for row in csv.reader(file) if row[1] == "test"}
    files = sorted(sample.images.iterdir())
    images = [p for p in files if p.stem in held_out and p.suffix in {".png", ".jpg"}]
    broken = folder / "broken.jpg"
    broken.write_bytes(images[0].read_bytes()[:200])
    noise = folder / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(noise)
    dicom = next(p for p in files if p.suffix == ".dcm")
    return Served(folder / "index", images, dicom, broken, noise)


@dataclass
class Tab:
    """A page in a browser of its own, and what it did behind the scenes."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def upload(self, *files: Path) -> None:
        self.page.set_input_files("#files", files)

    def annotate(self, *files: Path, failed: int = 0) -> None:
        """Upload the first files of a page, and wait until all are done."""
        self.upload(*files)
        self.finished(len(files) - failed, failed)

    def sign_in(self) -> None:
        self.page.get_by_label("Key", exact=True).fill(KEY)
        self.button("Use this key").click()

    def finished(self, done: int, failed: int = 0) -> None:
        noun = "image" if done + failed == 1 else "images"
        text = f"{done} of {done + failed} {noun} annotated" + f", {failed} failed" * bool(failed)
        expect(self.page.locator("#summary")).to_have_text(text, timeout=60_000)

    def neighbors_have_pictures(self) -> None:
        """If the index has any; each can be decoded, so it came through."""
        headers = {"Authorization": f"Bearer {KEY}"}
        info = httpx.get(f"{self.address}/v1/info", headers=headers).json()
        pictures = self.page.locator(".neighbor img")
        expect(pictures).to_have_count(10 if info["index"]["thumbnails"] else 0)
        for picture in pictures.all():
            picture.evaluate("picture => picture.decode()")

    def find(self, text: str) -> Locator:
        """What is found for a text, by its heading."""
        self.page.get_by_label("Find cases of the index").fill(text)
        self.page.keyboard.press("Enter")
        heading = self.page.get_by_role("region", name="Cases found").get_by_role("heading")
        expect(heading.first).to_be_focused()
        return self.page.locator("#found")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def tabs(self) -> Locator:
        return self.page.get_by_role("tab")


Opener = Callable[..., Tab]


@contextmanager
def opening(browser: Browser, server: str) -> Iterator[Opener]:
    """Opens pages of a server; afterwards nothing forbidden may have happened on any."""
    opened: list[Tab] = []

    def opener(address: str = server, **options: Any) -> Tab:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | options)
        tab = Tab(context.new_page(), address)
        tab.page.set_default_timeout(10_000)
        tab.page.on("console", lambda m: tab.errors.append(m.text) if m.type == "error" else None)
        tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.page.on("request", lambda request: tab.requests.append(request.url))
        opened.append(tab)
        tab.page.goto(address)
        return tab

    yield opener
    for tab in opened:
        tab.page.context.close()
        # Chromium itself reports every answer that is not a success, and refused connections.
        assert [e for e in tab.errors if not e.startswith("Failed to load resource")] == []
        foreign = [
            u for u in tab.requests if not u.startswith((f"{tab.address}/", "blob:", "data:"))
        ]
        assert foreign == []
