"""Runs against ground truth: the official scores, their intervals, and what a collection holds."""
