"""A site: its configuration, its set-up, and whether all of its parts are right."""
