"""Studies of the harness: suites that are killed, and what becomes of their tables."""
