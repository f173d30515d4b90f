"""Triton kernels for test-time compute: usable alone, with torch and triton only.

* `uncertainty`: what a row of logits says about how sure the model is, in one pass, and a token drawn from it.
* `forest_attention`: decode attention for sequences that share cached prefixes; each shared run is read once.
* `scoring`: teacher-forced statistics of given tokens from hidden states and the head, in float32.

Every operation has a `reference` in plain torch, a `triton` twin, and a function that picks by device. What joins
them to vLLM is in `vllm_plugin`, which nothing else here imports.
"""
