"""`python -m service` is the `mitosis` command."""

from service.cli import app

app()
