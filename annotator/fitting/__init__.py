"""Fits an encoder to a collection: fine-tunes its network on the collection's concepts."""
