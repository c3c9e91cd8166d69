"""What Airlock is shown with."""
