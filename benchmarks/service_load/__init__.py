"""What `annotator serve` bears: throughput, latency, overload, memory, reloads."""
