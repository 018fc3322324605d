"""How fast shards are built beside other ways, and whether a build survives being killed. Writes one JSON."""
