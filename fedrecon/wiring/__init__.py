"""TFF processes, and nothing but TFF."""
