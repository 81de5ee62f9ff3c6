"""Faults between the service and its broker, on purpose: `python -m tests.chaos`."""
