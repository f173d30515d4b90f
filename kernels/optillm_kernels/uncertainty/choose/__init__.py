"""A token from the list, or from the whole row."""
