"""The job store's schema, version by version."""
