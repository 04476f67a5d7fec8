"""Report on the images of a command: failures by reason, skipped files, and notes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say, write_result

if TYPE_CHECKING:
    from annotator.errors import ImageError
    from annotator.images.notes import Note

_PATHS_SHOWN = 10


class ImageReport:
    """What is said of images beside their results.

    Attributes:
        failed: Error by path of each image that could not be used.
        skipped: Paths of sound files without an image, such as a DICOM structured report.
        noted: What was done to pictures that their files did not ask for, by path.
    """

    def __init__(
        self,
        failed: Mapping[str, ImageError] | None = None,
        noted: Mapping[str, tuple[Note, ...]] | None = None,
    ) -> None:
        self.failed: dict[str, ImageError] = {}
        self.skipped: list[str] = []
        self.noted: dict[str, tuple[Note, ...]] = dict(noted or {})
        for where, error in (failed or {}).items():
            self.add(where, error)

    def add(
        self, where: str, error: ImageError | None = None, notes: tuple[Note, ...] = ()
    ) -> None:
        """Record the error or the notes of an image."""
        if error is not None and error.is_no_image:
            self.skipped.append(where)
        elif error is not None:
            self.failed[where] = error
        if notes:
            self.noted[where] = notes

    @property
    def exit_code(self) -> int:
        """`EXIT_PARTIAL` if an image could not be used, else `EXIT_OK`."""
        return EXIT_PARTIAL if self.failed else EXIT_OK

    def say(self, file: Path | None = None) -> None:
        """Print the report on stderr, grouped by reason, and write all of it to a CSV file."""
        from annotator.images.notes import NOTES

        by_note: dict[Note, list[str]] = {}
        for where, notes in self.noted.items():
            for note in notes:
                by_note.setdefault(note, []).append(where)
        for note, paths in by_note.items():
            if note == "vector_scaled":  # of a whole file: which ones does not matter
                say(f"{len(paths)} x {NOTES[note]}")
            else:
                _say_group(NOTES[note], "", paths)
        if self.skipped:
            _say_group("no image in the file; skipped", "", self.skipped)
        by_reason: dict[tuple[str, str], list[str]] = {}
        for where, error in self.failed.items():
            by_reason.setdefault((error.message, error.hint), []).append(where)
        for (reason, hint), paths in sorted(by_reason.items(), key=lambda group: -len(group[1])):
            _say_group(reason, hint, paths, always=True)
        if self.failed:
            many = f"{len(self.failed)} image{'s' * (len(self.failed) > 1)}"
            say(f"{many} could not be used.", always=True)
        if file is not None:
            write_result(self._to_csv(), file)

    def _to_csv(self) -> str:
        from annotator.images.notes import NOTES
        from annotator.tables.spreadsheets import harmless

        rows: list[tuple[str, ...]] = [
            (where, e.code, e.message, e.hint) for where, e in self.failed.items()
        ]
        rows += [(where, "no_pixels", "no image in the file", "") for where in self.skipped]
        rows += [(w, note, NOTES[note], "") for w, notes in self.noted.items() for note in notes]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "code", "reason", "hint"))
        writer.writerows(tuple(map(harmless, row)) for row in rows)
        return text.getvalue()


def _say_group(reason: str, hint: str, paths: Sequence[str], *, always: bool = False) -> None:
    say(f"{len(paths)} x {reason}{f'. {hint}' if hint else ''}", always=always)
    for path in paths[:_PATHS_SHOWN]:
        say(f"    {path}", always=always)
    if len(paths) > _PATHS_SHOWN:
        more = len(paths) - _PATHS_SHOWN
        say(f"    … and {more} more (--report FILE lists all)", always=always)
