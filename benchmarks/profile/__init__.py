"""Where a pipeline's time goes, and how that compares."""
