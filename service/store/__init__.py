"""What is kept: the database's tables, the data directory, and the settings that say where they lie.

Whatever is given an engine raises DatabaseUnavailable where the database does not answer, or is locked for too long.
"""
