"""What to review next: images by the F1 that their review is expected to gain."""
