"""Other engines on the very chain that `benchmarks.chain` measures, each in its own environment."""
