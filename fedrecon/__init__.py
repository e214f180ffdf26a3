"""Partially local federated learning for recommenders, on TensorFlow Federated.

Importing this package, or any module in it, changes no global state.
"""

__version__ = "0.1.0"
