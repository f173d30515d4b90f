"""The window of confidences in one launch."""
