"""Both forms of the depthwise convolution equal the textbook."""

from __future__ import annotations

import numpy as np
import pytest

from clustering_jax.nn.cpu.depthwise import FORMS, depthwise, same_padding


def textbook(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    n, height, width, channels = x.shape
    size = len(kernel)
    (top, bottom), (left, right) = same_padding(height, size, stride), same_padding(width, size, stride)
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    y = np.zeros((n, -(-height // stride), -(-width // stride), channels))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            seen = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            y[:, i, j] = (seen * kernel).sum((1, 2))
    return y


@pytest.mark.parametrize("lowering", ["auto", *FORMS])
@pytest.mark.parametrize(
    ("height", "width", "size", "stride"),
    [(8, 8, 3, 1), (8, 8, 3, 2), (7, 10, 5, 2), (9, 6, 5, 1), (1, 2, 5, 2), (7, 7, 3, 2)],
)
def test_value(height, width, size, stride, lowering):
    draw = np.random.RandomState(height)
    x, kernel = draw.randn(2, height, width, 3).astype(np.float32), draw.randn(size, size, 3).astype(np.float32)
    y = depthwise(x, kernel, stride, lowering=lowering)
    np.testing.assert_allclose(y, textbook(x, kernel, stride), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(224, 3, 2, (0, 1)), (112, 5, 2, (1, 2)), (7, 3, 1, (1, 1)), (7, 5, 2, (2, 2)), (2, 1, 2, (0, 0))],
)
def test_padding_equals_tensorflow(size, kernel, stride, padding):
    assert same_padding(size, kernel, stride) == padding
