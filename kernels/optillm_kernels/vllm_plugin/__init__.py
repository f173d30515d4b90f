"""What joins the kernels to vLLM; nothing else in this package imports it."""
