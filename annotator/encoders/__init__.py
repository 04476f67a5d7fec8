"""Encoders of images as unit vectors, their preprocessing, runners and cache.

Importing this package does not import torch; `make_embedder` does.
"""
