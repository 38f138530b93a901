"""The report's sources: runs, scores, statistics, provenance."""
