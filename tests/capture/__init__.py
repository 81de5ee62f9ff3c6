"""Calls as files: their form, and the commands that write and place them."""
