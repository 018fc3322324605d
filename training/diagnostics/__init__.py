"""A run comes in; its cost, speed, held-out metrics and diagnostics go out. Nothing here changes a weight."""
