"""Who may use `/v1/ingest`: by token, by pair, by address, or by ticket."""
