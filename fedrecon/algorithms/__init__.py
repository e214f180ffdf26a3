"""Federated algorithms as TFF computations; no algorithm imports another."""
