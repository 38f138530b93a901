"""The report: its declarations (YAML, templates), and the code that makes it."""
