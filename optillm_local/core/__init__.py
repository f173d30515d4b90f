"""The contracts between optimizers, clients and everything that watches them."""
