"""Centre boxes by hand; what a centred source gives is tested with the pipeline in test_exactness.py."""

import numpy as np

from pipelines.run.unaugmented import centre_boxes


def test_centre_boxes_by_hand():
    boxes = centre_boxes(np.array([10, 7, 4]), np.array([4, 10, 4]))
    assert boxes.tolist() == [[3, 0, 7, 4], [0, 1, 7, 8], [0, 0, 4, 4]]
    assert boxes.dtype == np.int32
