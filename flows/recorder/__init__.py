"""The recorder: shows the catalog's attempts as task runs of their pilots' flow runs.

Prefect's server drops what it can't take in: posts are few at a time, read back, and repeated
where something is missing. `attempt.shown` says what arrived, so the recorder may be stopped,
killed, or run again from any point.
"""
