"""What ranks of one run share: a batch, its statistics, gradients, running statistics, and the decision to stop."""
