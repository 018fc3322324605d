"""Dense probe: images and masks come in, a linear layer on the frozen trunk's cells is fitted, IoU goes out."""
