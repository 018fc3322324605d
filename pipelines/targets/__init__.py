"""Pixels and drawn geometry come in, inputs and targets of the tasks go out, in three folders: color, motion, views.

One function a step, on the CPU and on a device; which functions make up a task stands in pipelines/tasks.
"""
