"""The references of the conformance suite against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from sbe.testing.conformance.parts import noise
from sbe.testing.conformance.services import fir_input, ref_fir, ref_sobel


@pytest.mark.parametrize(("width", "height"), [(3, 3), (4, 3), (17, 5), (255, 31), (258, 9)])
def test_sobel(width: int, height: int) -> None:
    image = noise(width * height, seed=width).reshape(height, width)
    image[: height // 2] = np.where(image[: height // 2] > 127, 255, 0)  # saturates
    down = np.outer([1, 0, -1], [1, 2, 1])
    wide = image.astype(np.int64)
    edges = abs(signal.convolve2d(wide, down, "valid"))
    edges += abs(signal.convolve2d(wide, down.T, "valid"))
    assert np.array_equal(ref_sobel(image)[1:-1, 1:-1], np.minimum(edges, 255))


@pytest.mark.parametrize(("samples", "taps"), [(1, 1), (1, 5), (5, 1), (129, 128), (5000, 180)])
@pytest.mark.parametrize("loud", [False, True])
def test_fir(samples: int, taps: int, loud: bool) -> None:
    x, h = fir_input(samples, taps, loud)
    exact = signal.lfilter(h.astype(object), [1], x.astype(object))
    wanted = [max(-32768, min(32767, (int(y) + 0x4000) >> 15)) for y in exact]
    assert ref_fir(x, h).tolist() == wanted
