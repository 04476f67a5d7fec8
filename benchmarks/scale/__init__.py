"""The capacity plan: what large collections take, by arithmetic from the results."""
