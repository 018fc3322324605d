"""The loaders that are compared, by what they stand on: a `Setting` comes in, passes of batches go out."""
