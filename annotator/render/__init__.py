"""What people look at: HTML pages and text tables."""
