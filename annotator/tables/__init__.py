"""Text files of the task, of every year: ground truth, runs, names, captions, splits."""
