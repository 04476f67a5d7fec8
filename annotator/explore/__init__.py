"""Search of an index by image, concept or text."""
