"""The report's figures, a file each: plain arrays in, a matplotlib Figure out (see `style`)."""
