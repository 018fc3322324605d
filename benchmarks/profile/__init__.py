"""The profiler: a pipeline comes in; which stage is slow, how far from the limit, and what would help go out.

run_profile.py calls the folders in order: measure, model, judge, show.
"""
