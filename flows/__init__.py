"""The story: the order of the steps, and what failure means."""
