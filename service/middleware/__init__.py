"""What every request passes before a route: keys, admission, headers, logging."""
