"""Motion: gray frames of a clip come in; the pixels that move otherwise than the camera go out as a mask."""
