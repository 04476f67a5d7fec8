"""The task's text files of every year: ground truth, runs, names, captions, splits."""
