"""One module per format: a Report to bytes."""
