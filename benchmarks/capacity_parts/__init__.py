"""Parts of capacity.py."""
