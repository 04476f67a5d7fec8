"""Decoding of DICOM files.

`reader` parses a file and refuses what is no image, `header` describes its pixels, `stored` and
its helpers (`codestreams`, `plugins`, `rle`) bring the stored values of a frame out, and `grey` and
`colour` make a picture of them. `tags` reads attributes alone, to find and identify files.
"""

from annotator.images.dicom.reader import DicomReader, load_pydicom

__all__ = ["DicomReader", "load_pydicom"]
