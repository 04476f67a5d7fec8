"""Neighbours to concepts: weights, posterior over label sets, decision. Pure NumPy."""
