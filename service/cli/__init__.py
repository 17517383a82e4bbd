"""The `mitosis` command: one module per command."""
