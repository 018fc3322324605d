"""Motion masks of all clips of a batch at once, as tensor code that stays on its device."""
