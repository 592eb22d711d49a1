"""Federated training on real data: allocations, published controllers and habits on one account."""
