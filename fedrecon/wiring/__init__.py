"""TFF processes and nothing but TFF; the server's arithmetic beside them in plain TensorFlow.

- `process`, `stages`: training, stateful and evaluation processes, and the stages of a round;
- `server`: the mean and the server's step;
- `weights`, `user_tables`: what the server keeps, as TFF's `ModelWeights` and by name;
- `at_clients`: computations whose results stay on the devices;
- `secure`: aggregators;
- `debug`: the same rounds without TFF computations, for breakpoints;
- `outputs`, `types`: what shards and rounds return, and what they take.
"""
