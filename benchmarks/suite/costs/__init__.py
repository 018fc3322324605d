"""Costs: stages and their records in, the seconds of stages that are left out."""
