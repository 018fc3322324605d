"""Earlier place of `pipelines.decode`, kept for scripts written before the move; version 0.2 drops it."""
