"""Targets: pixels and drawn geometry come in, inputs and targets of the tasks go out. Folders: color, motion, views.

Each function is one step, with a path for the CPU and one for a GPU. The files in pipelines/tasks combine them.
"""
