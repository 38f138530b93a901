"""params.yaml and the profiles: read, checked, and the runs that they declare."""
