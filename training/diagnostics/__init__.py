"""A run comes in; its cost, its speed and its held-out metrics go out. Nothing here changes a weight."""
