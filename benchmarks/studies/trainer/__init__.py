"""Studies of training: runs that are killed, and what options of speed give."""
