"""Synthetic samples: images with the spectrum of natural ones, and random tensors. Pure: touches no file.

Each sample depends on its seed and its index alone, so that any process makes the same one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeprof import units
from pipeprof.errors import DataError
from pipeprof.scenario.synthetic_limits import LARGEST_IMAGE_BYTES, tensor_shape

JPEG_BYTES: Final = 110_000
JPEG_SIZE: Final = (500, 375)
"""Mean size of an ImageNet file, and the size in pixels of a typical one."""

_CANVAS: Final = 1024
_LOWEST, _HIGHEST = 5.0, 98.0
"""JPEG qualities between which the mean size is steered."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_TRIALS: Final = 34
"""Files made to find the quality: the mean of this many is within 1% of the mean of all."""


@dataclass(frozen=True)
class ImageRecipe:
    """A recipe for JPEG files of a given mean size: see `image_recipe`."""

    canvas: npt.NDArray[np.int16]
    """[rows, columns x YCbCr] of a 1/f texture around 0, with room for a cut from each of its places."""
    seed: int
    width: int
    height: int
    quality: float
    """Between two whole qualities, each file takes one of them, in this proportion."""

    def encode(self, index: int) -> bytes:
        """Return the JPEG file of sample `index`."""
        pixels = self._pixels(index)
        image = Image.frombytes("YCbCr", (self.width, self.height), pixels.tobytes())
        file = io.BytesIO()
        image.save(file, "JPEG", quality=math.floor(self.quality + _spread(index, math.sqrt(2))))
        return file.getvalue()

    def _pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """Add two random cuts of the canvas, the second upside down. Contrast varies by the file."""
        rng = np.random.default_rng((self.seed, index))
        contrast = np.float32(2 ** (_spread(index, _GOLDEN) - 0.5) / math.sqrt(2))
        mixed: npt.NDArray[np.float32] = (self._cut(rng) + self._cut(rng)[::-1]) * contrast + np.float32(128)
        return mixed.clip(0, 255).astype(np.uint8)

    def _cut(self, rng: np.random.Generator) -> npt.NDArray[np.int16]:
        top, left = rng.integers(0, _CANVAS, 2)
        return self.canvas[top : top + self.height, 3 * left : 3 * (left + self.width)]


def _spread(index: int, stride: float) -> float:
    """Return a number in [0, 1), evenly spread over any run of indices (a Kronecker sequence)."""
    return (0.5 + index * stride) % 1.0


def image_recipe(seed: int, sample_bytes: int | None) -> ImageRecipe:
    """Return how to make JPEG files of `sample_bytes` in the mean, with ImageNet's bytes per pixel.

    Natural images have amplitudes that fall as 1 / spatial frequency (Field, J. Opt. Soc. Am. A, 1987), which
    makes the work of a decoder resemble that on photographs. Raises `DataError` if no JPEG is that small or
    that large.
    """
    wanted = sample_bytes or JPEG_BYTES
    if wanted > LARGEST_IMAGE_BYTES:
        raise DataError(
            f"data.sample_bytes is {wanted}: an image of that size is refused by its decoder",
            f"give {units.size(LARGEST_IMAGE_BYTES)} or less, or use format tensor_files",
        )
    scale = math.sqrt(wanted / JPEG_BYTES)
    width, height = (max(8, round(side * scale)) for side in JPEG_SIZE)
    canvas = _canvas(seed, width, height)
    trials = max(5, min(_TRIALS, _TRIALS * JPEG_BYTES // wanted))

    def mean_bytes(quality: float) -> float:
        recipe = ImageRecipe(canvas, seed, width, height, quality)
        return sum(len(recipe.encode(index)) for index in range(trials)) / trials

    return ImageRecipe(canvas, seed, width, height, _quality_for(wanted, mean_bytes))


def _quality_for(wanted: int, mean_bytes: Callable[[float], float]) -> float:
    """Find the quality that gives `wanted` bytes, by bisection; `mean_bytes` grows with it."""
    low, high = _LOWEST, _HIGHEST
    if mean_bytes(low) > wanted:
        raise DataError(
            f"data.sample_bytes is {wanted}: no JPEG image of its kind is that small",
            f"give {units.size(mean_bytes(low) * 1.1)} or more, or use format tensor_files",
        )
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (middle, high) if mean_bytes(middle) < wanted else (low, middle)
    return (low + high) / 2


def _canvas(seed: int, width: int, height: int) -> npt.NDArray[np.int16]:
    """Make a texture: brightness with a deviation of 55, colours with 15, all three with a 1/f spectrum."""
    rng = np.random.default_rng(seed)
    planes = [_field(rng) * deviation for deviation in (55, 15, 15)]
    canvas = np.stack(planes, axis=-1).round().astype(np.int16)
    wide = np.pad(canvas, ((0, height), (0, width), (0, 0)), mode="wrap")  # the field has no edges
    return wide.reshape(len(wide), -1)


def _field(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Make a periodic random field [canvas, canvas] of deviation 1, amplitude 1 / spatial frequency."""
    frequency = np.hypot(np.fft.fftfreq(_CANVAS)[:, None], np.fft.rfftfreq(_CANVAS)[None, :])
    frequency[0, 0] = np.inf
    real, imaginary = rng.standard_normal((2, *frequency.shape))
    field = np.fft.irfft2((real + 1j * imaginary) / frequency, s=(_CANVAS, _CANVAS))
    return np.asarray(field / field.std())


@dataclass(frozen=True)
class TensorRecipe:
    """A recipe for `.npy` files of float32: [3, rows, columns] like a cropped image, or flat if small."""

    seed: int
    shape: tuple[int, ...]

    def encode(self, index: int) -> bytes:
        """Return the `.npy` file of sample `index`, normally distributed."""
        values = np.random.default_rng((self.seed, index)).standard_normal(self.shape, dtype=np.float32)
        file = io.BytesIO()
        np.save(file, values)
        return file.getvalue()


def tensor_recipe(seed: int, sample_bytes: int | None, crop: int) -> TensorRecipe:
    """Return how to make tensors of `sample_bytes` without header; by default as large as a crop."""
    return TensorRecipe(seed, tensor_shape(sample_bytes, crop))
