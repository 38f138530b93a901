"""The code of the report: results read, tables, figures, page, PDF, model cards."""
