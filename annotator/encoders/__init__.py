"""Images to unit vectors: encoders, their preprocessing, and a cache of what they computed.

Importing this package does not import torch; `make_embedder` does.
"""
