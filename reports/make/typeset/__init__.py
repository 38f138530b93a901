"""A table as LaTeX or Markdown."""
