"""Losses and gradients come in; changed weights go out: losses, optimizers, schedules, and the step that joins them."""
