"""References that see all data on one machine: nothing here is federated."""
