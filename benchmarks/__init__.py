"""Commands behind every number in the docs; each writes JSON to benchmarks/results."""
