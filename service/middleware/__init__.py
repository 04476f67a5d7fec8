"""ASGI middleware: keys, limits on connections, headers, logging."""
