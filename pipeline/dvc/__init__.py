"""The one room that uses DVC, and the functions that DVC 3.67 keeps to itself."""
