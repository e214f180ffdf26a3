"""What clients do, vectorised over a shard: no TFF process, no algorithm."""
