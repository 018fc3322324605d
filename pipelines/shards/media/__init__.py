"""Encoded images and videos come in, the bytes that are stored in a shard go out, or the reason why not.

Images keep their bytes where they can; videos are cut into short clips.
"""
