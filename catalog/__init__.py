"""The truth: what exists, where, and in which state. Knows neither Prefect nor CWL."""
