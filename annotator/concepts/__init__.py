"""Concepts: their names, and what is known of them beside the images."""
