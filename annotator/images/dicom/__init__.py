"""Decoding of DICOM files.

`reader` parses a file and refuses what is no image, `header` describes its pixels, `stored` and
its helpers (`codestreams`, `plugins`, `rle`) bring the stored values of a frame out, and `grey` and
`colour` make a picture of them.
"""

from annotator.images.dicom.reader import DicomReader, looks_like_dicom, silence_log

__all__ = ["DicomReader", "looks_like_dicom", "silence_log"]
