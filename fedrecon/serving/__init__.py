"""Trained models in use: recommendations for users, seen in training or not."""
