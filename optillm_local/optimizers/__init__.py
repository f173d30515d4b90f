"""The algorithms, one file each. They speak the vocabulary of `core` and never see an engine."""
