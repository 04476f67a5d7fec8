"""The parts of the service's load benchmark: a server, a client, and what is measured with them."""
