"""Rules about businesses."""
