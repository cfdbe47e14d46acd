"""`curiosft model`: check a base model, and prepare it for long thinking."""
