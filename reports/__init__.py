"""The report: what is declared (YAML, templates), and the code that makes it."""
