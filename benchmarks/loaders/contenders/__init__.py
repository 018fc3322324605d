"""The loaders that are compared, one file each: a `Setting` comes in, an iterator of checked tensors goes out."""
