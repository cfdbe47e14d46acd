"""The commands. Nothing is imported here: `__main__` cleans the module path first."""
