"""Preview: a folder of shards comes in, one PNG that shows inputs and targets of each task goes out."""
