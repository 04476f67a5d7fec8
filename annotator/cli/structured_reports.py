"""The option --sr of `annotate`: DICOM structured reports in a folder, or stored in an archive."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from annotator import __version__
from annotator.cli.console import EXIT_OK, EXIT_PARTIAL, say
from annotator.cli.sections import option
from annotator.errors import AnnotatorError, ImageError
from annotator.files import whole_file

if TYPE_CHECKING:
    from pydicom import Dataset

    from annotator.annotation import Annotation
    from annotator.images.ref import ImageRef

_SHOWN = 3  # images in a message

sr_option = option(
    "Output",
    "--sr",
    "reports_to",
    metavar="FOLDER|ARCHIVE",
    help="Also write the concepts of each DICOM image as a structured report (TID 1500), into a "
    "folder or to an archive, dicomweb://HOST/PATH.",
)


class StructuredReports:
    """Writes a report on each image, at once; one that is there already stays as it is.

    Args:
        target: A folder, which is made if it is not there, or the address of an archive.
        refs: The images.
        names: Name by concept.
        model: Name and version of the index.

    Raises:
        AnnotatorError: The package is not installed, or the target can be none.
    """

    def __init__(
        self, target: str, refs: Sequence[ImageRef], names: Mapping[str, str], model: str
    ) -> None:
        from annotator.images.dicomweb import Address, is_archive
        from annotator.render.structured_report import check_package

        check_package()
        self._target = target
        self._folder = None if is_archive(target) else Path(target)
        if self._folder is None:
            Address.of(target)
        else:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise AnnotatorError(
                    f"{target} cannot be a folder of reports: {error.strerror}.",
                    "Name another folder, or an archive: --sr dicomweb://HOST/PATH",
                ) from error
        self._refs = {ref.id: ref for ref in refs}
        self._names = names
        self._model = model
        self._written = self._empty = 0
        self._failed: dict[tuple[str, str], list[str]] = {}

    def add(self, annotation: Annotation) -> None:
        """Write the report on an image; what fails is said in the end."""
        from annotator.render.structured_report import Finding, structured_report

        if annotation.error is not None:
            return  # said already
        if not annotation.cuis:
            self._empty += 1
            return
        ref = self._refs[annotation.image_id]
        findings = [
            Finding(cui, self._names.get(cui, ""), score, probability)
            for cui, _, score, probability in annotation.each
        ]
        try:
            document = structured_report(
                _header(ref), findings, model=self._model, version=__version__
            )
            self._write(annotation.image_id, document)
            self._written += 1
        except AnnotatorError as error:
            self._failed.setdefault((error.message, error.hint), []).append(ref.where)
        except OSError as error:
            reason = (f"it cannot be written: {error.strerror}", "Check the folder and its disk.")
            self._failed.setdefault(reason, []).append(ref.where)

    def _write(self, image_id: str, document: Dataset) -> None:
        from pydicom import dcmread, dcmwrite

        from annotator.images.dicomweb import store

        if self._folder is None:
            store(self._target, document)
            return
        path = self._folder / f"{quote(image_id, safe=' ')}.dcm"
        if path.exists() and (
            dcmread(path, force=True, specific_tags=["SOPInstanceUID"]).get("SOPInstanceUID")
            == document.SOPInstanceUID
        ):
            return
        with whole_file(path) as temporary:
            dcmwrite(temporary, document, enforce_file_format=True)

    @property
    def exit_code(self) -> int:
        """`EXIT_PARTIAL` if a report could not be written, else `EXIT_OK`."""
        return EXIT_PARTIAL if self._failed else EXIT_OK

    def say(self) -> None:
        """Say how many there are, and why others are not."""
        none = f"; {self._empty:,} images have no concepts, and no report" if self._empty else ""
        say(f"{self._target}: {self._written:,} structured reports{none}.")
        for (message, hint), places in self._failed.items():
            say(f"{len(places)} x no report: {message}{f'. {hint}' if hint else ''}", always=True)
            for place in places[:_SHOWN]:
                say(f"    {place}", always=True)


def _header(ref: ImageRef) -> Dataset:
    """The attributes of an image.

    Raises:
        ImageError: It is no DICOM, or cannot be read any more.
    """
    from pydicom import dcmread

    from annotator.images.dicomweb import Instance
    from annotator.images.kinds import looks_like_dicom

    if isinstance(ref.read, Instance):
        return ref.read.header()
    data = ref.read()
    if not looks_like_dicom(data[:132]):
        raise ImageError("the image is no DICOM, which a report has to name")
    try:
        return dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom's, of many kinds
        raise ImageError("its header cannot be read") from error
