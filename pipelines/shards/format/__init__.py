"""The files of a folder of shards: tars, DALI indexes, `manifest.json` and `samples.arrow`, here or behind a URL.

Reads and writes those files and nothing else; which sample goes where is decided in `making`.
"""
