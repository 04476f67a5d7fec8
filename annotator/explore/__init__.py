"""Finding cases in an index: by an image, by a concept, by words."""
