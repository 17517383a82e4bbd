"""`python -m service` is the `mitosis` command."""

from service.cli.app import app

app()
