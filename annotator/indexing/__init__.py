"""Building and updating an index, and its metadata."""
