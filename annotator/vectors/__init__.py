"""Vectors that come in files, from any encoder, and those that leave in them."""
