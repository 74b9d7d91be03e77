"""Other servers of the same graph."""
