"""What `curiosft data` does."""
