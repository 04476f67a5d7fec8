"""Images: finding them, and decoding them in bounds; the only place that opens one."""
