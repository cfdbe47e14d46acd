"""What `curiosft model` does."""
