"""The rows of the quality benchmark: ways from labelled images to the concepts of new ones."""
