"""Records read back: from a stage's folder, a suite's folder or a committed file; compared with each other."""
