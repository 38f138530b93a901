"""The report's figures: which there are, and what each is drawn from."""
