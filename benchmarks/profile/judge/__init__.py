"""Measurements and their model come in; the verdict, the table of stages and the advice go out."""
