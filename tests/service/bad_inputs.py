"""All bad inputs in their families, as requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import bad_bombs
import bad_dicom
import bad_files
import bad_requests
from bad_files import ANY, BadFile
from bad_requests import BadRequest, Pieces, form, part, post


def _dicoms() -> Iterator[BadFile]:
    for makes in (bad_dicom.wrong_headers, bad_dicom.hostile_syntaxes):
        for name, data in makes():
            yield BadFile(name, partial(bytes, data))
    for name, data in bad_dicom.broken_structure():
        yield BadFile(name, partial(bytes, data), ANY)


def _uploads(files: Callable[[], Iterable[BadFile]]) -> Iterator[BadRequest]:
    """Each file alone in a request, as the body and in a form by turns."""
    for number, file in enumerate(files()):
        yield BadRequest(file.name, partial(_upload, file, number % 2 == 1), file.statuses)


def _upload(file: BadFile, in_form: bool) -> Pieces:
    return [form(part(file.make())) if in_form else post(file.make())]


@cache
def family(name: str) -> list[BadRequest]:
    """The requests of a family."""
    return list(FAMILIES[name]())


#: What makes each family.
FAMILIES: dict[str, Callable[[], Iterator[BadRequest]]] = {
    "truncations": partial(_uploads, bad_files.truncations),
    "other types": partial(_uploads, bad_files.other_types),
    "noise": partial(_uploads, bad_files.noise),
    "polyglots": partial(_uploads, bad_files.polyglots),
    "gigapixels": partial(_uploads, bad_files.gigapixels),
    "PNG bombs": partial(_uploads, bad_bombs.png_bombs),
    "other bombs": partial(_uploads, bad_bombs.other_bombs),
    "TIFF": partial(_uploads, bad_bombs.tiff_bombs),
    "DICOM": partial(_uploads, _dicoms),
    "multipart": bad_requests.multipart,
    "file names": bad_requests.filenames,
    "queries": bad_requests.queries,
    "framing": bad_requests.framing,
    "cut off": bad_requests.cut_off,
}
