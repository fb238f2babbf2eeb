"""`python -m cli`: the `spdf` command."""

from cli.main import run

run()
