"""The intake: requests are done, and what arrives becomes requests, datasets and workflows."""

INTAKE = "intake"
"""Name of the catalog's lease that the one intake of a site holds."""
