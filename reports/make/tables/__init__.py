"""What each table of the report prints."""
