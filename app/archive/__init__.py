"""What is kept of calls: their logs, and their audio while it is retained."""
