"""Prefect flows, and the compiling of templates into plans."""
