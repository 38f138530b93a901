"""Training: the loop, the losses, the processor."""
