"""Parts of a suite's configuration: keys, axes, variants, filters of cells, options of evaluations and pretrainings."""
