"""A run while it trains comes in; its speed and its held-out metrics go out. Nothing here changes a weight."""
