"""A folder of shards comes in, one PNG that shows what each task sees and its target goes out."""
