"""Measurements behind what docs/ says of single features, one file each."""
