"""Explanations of annotations: the cases that voted, and attribution maps of their similarities."""
