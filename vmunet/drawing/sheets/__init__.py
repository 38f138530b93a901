"""Contact sheets: many images or cases on one picture."""
