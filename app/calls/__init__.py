"""Calls as a whole: what is decided of them beside their streams."""
