"""The report's figures, and the files that each is drawn from."""
