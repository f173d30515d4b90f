"""Triton kernels for test-time compute: usable alone, with torch and triton only."""
