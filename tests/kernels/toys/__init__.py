"""Two kernels that anyone can check by eye, for the tests of `optillm_kernels.aot`."""
