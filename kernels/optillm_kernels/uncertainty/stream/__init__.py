"""One pass over the logits: sums, and the largest of each group."""
