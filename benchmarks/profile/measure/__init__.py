"""A running pipeline comes in; seconds, bytes and counts of its stages and of this machine's limits go out."""
