"""Captions: the consensus of an image's neighbours, and how captions are scored."""
