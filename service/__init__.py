"""The HTTP service over `annotator.pipeline.Annotator`: `annotator serve`."""
