"""Feeds a network any number of images, whatever batches it takes."""

import numpy as np

from leanface.runtime.base import Coefficients, Images, Runtime


def run_in_batches(runtime: Runtime, images: Images) -> Coefficients:
    """Compute the coefficients of all images, in as few batches as the network takes.

    A runtime never pads. For a network of a fixed batch this function does: the last batch is filled up with copies of
    its last image, and their rows are dropped.

    Raises:
        BackendError: there are no images, or as `Runtime.run`.
    """
    least, most = runtime.input_spec.batch
    size = most or max(1, len(images))
    rows: list[Coefficients] = []
    for start in range(0, max(1, len(images)), size):
        batch = images[start : start + size]
        count = len(batch)
        if 0 < count < least:
            batch = np.concatenate([batch, np.repeat(batch[-1:], least - count, axis=0)])
        rows.append(runtime.run(batch)[:count])
    return np.concatenate(rows)
