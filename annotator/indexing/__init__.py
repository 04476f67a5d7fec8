"""An index's life: build, add, remove, compact, and the metadata it records."""
