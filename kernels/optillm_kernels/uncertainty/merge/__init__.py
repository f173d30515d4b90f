"""Statistics from the sums, and the likeliest tokens from the best groups."""
