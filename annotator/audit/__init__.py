"""Audits: duplicates, leaks across a split, likely label errors, outliers, sources of images."""
