"""`curiosft data`: check a data set, and write a repaired copy."""
