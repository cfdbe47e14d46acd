"""The commands beside the four stages, and what runs the stages in order."""
