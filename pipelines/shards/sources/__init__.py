"""Sources: folders, lists, tars, saved datasets and URLs come in, one `SourceItem` per image or video goes out.

Names, labels and splits are settled here; pixels are not decoded.
"""
