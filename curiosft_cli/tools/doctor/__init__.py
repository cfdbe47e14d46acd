"""`curiosft doctor`: what this machine has, and what a configuration needs of it."""
