"""What was measured, in the text form that Prometheus reads."""
