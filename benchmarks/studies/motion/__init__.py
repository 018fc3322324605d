"""Motion studies: how well motion masks meet the exact masks of real video."""
