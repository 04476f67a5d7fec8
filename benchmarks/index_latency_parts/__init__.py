"""The parts of the index benchmark: data, systems, a process for each cell, figures and report."""
