"""The page of `vmunet serve`: drop an image, see its mask. Only this machine can open it."""
