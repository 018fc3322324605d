"""WebDataset tars of others come in; a manifest, samples.arrow and an index of each go out. The tars stay untouched."""
