"""Ways to find the nearest vectors, behind one protocol: exact, approximate, on a GPU."""
