"""A folder of shards comes in; facts (info, stats), a list of faults (verify) or a merged folder go out."""
