"""What clients do, for all clients of a shard at once: no TFF process, no algorithm.

- `shards`: the examples of clients, and how their work is compiled;
- `values`: the values of weights, by name;
- `calls`: the model, called for all clients;
- `client_step`, `stages`: training, step by step;
- `updates`: what training changed, weighted and summed;
- `least_squares`: exact reconstruction;
- `client_metrics`: metrics, summed over clients.
"""
