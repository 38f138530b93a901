"""The content of each table of the report."""
