"""Speed of building shards beside other ways, and whether a build survives being killed. Writes one JSON."""
