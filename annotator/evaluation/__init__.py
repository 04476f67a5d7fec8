"""Evaluation of runs, captions and rankings, with intervals; statistics of a collection."""
