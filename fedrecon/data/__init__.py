"""Ratings: where they come from, how they are split, and what one client gives to a round."""
