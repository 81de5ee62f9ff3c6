"""Audio back into a call: what may be asked, and when what of it goes out. Sans-I/O."""
