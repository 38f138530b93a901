"""Read and check params.yaml and the profiles; list the runs that they declare."""
