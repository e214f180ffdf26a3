"""How good a trained model is, and for whom."""
