"""Shards: images and videos come in, tars of samples with a DALI index and one manifest go out.

`build_shards` (build.py) builds them; the folders below say which part of the work is where.
"""
