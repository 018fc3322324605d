"""Color: RGB pixels come in; Lab, ab bins with their soft weights, and rebalancing weights go out."""
