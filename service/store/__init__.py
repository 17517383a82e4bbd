"""What is kept: the database's tables, the data directory, and the settings that say where they lie."""
