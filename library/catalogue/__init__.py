"""The catalogue: its schema, its migrations, what is read from it and written to it."""
