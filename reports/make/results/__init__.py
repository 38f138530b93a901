"""What the report is made from: runs, scores, statistics, provenance."""
