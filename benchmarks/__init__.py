"""Benchmarks: one folder for each question, run as `python -m benchmarks.NAME` from a checkout."""
