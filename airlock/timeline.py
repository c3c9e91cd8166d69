"""The steps of a deploy as a picture."""
