"""The server: its protocols, its budgets, deadlines and caps."""
