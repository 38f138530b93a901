"""Pictures: contact sheets of a run, and the report's figures."""
