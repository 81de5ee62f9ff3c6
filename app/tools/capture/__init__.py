"""Calls as files: recorded at the wire, rebuilt from Redis, and placed again."""
