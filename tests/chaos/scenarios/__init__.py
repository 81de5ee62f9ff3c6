"""What `make chaos` plays: each module adds its scenarios to the registry."""
