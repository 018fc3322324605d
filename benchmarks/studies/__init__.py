"""Measurements that are run by hand, each as `python -m benchmarks.studies...`; each writes one complete record.

No command of `fourfold` needs them; what they found lies in benchmarks/records.
"""
