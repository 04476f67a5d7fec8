"""Nearest-neighbour model: projection, weights, posterior over label sets, decision. Pure NumPy."""
