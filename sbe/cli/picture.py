"""Pictures for the demo: any file that Pillow opens, in 8-bit grey; and before beside after."""

from __future__ import annotations

import importlib.util
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sbe import extras
from sbe.cli.arguments import write_file
from sbe.host.files import read_file

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

__all__ = ["Picture", "load", "numpy_sobel", "sample_photograph", "save_pair"]

# Photographs that packages bring along: package, path in it.
_SAMPLES: Final = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/camera.png"),
)

_FILE_MAX: Final = 256 << 20  # bytes
_PANEL_MIN, _PANEL_MAX = 240, 1600  # width of a half of the result, in pixels


@dataclass(frozen=True)
class Picture:
    """A picture in 8-bit grey."""

    name: str
    pixels: Pixels  # height x width, contiguous

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])


def sample_photograph() -> Path:
    """A photograph of an installed package. Imports none of them."""
    for package, path in _SAMPLES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(folder) / path).is_file():
                return Path(folder) / path
    raise click.ClickException(
        "no sample photograph is installed: name a picture, `sbe demo PICTURE`, or "
        f"{extras.install('demo')}, whose matplotlib brings one"
    )


def load(path: Path) -> Picture:
    """Opens a picture, turned as its camera says, in 8-bit grey."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    data = read_file(path, _FILE_MAX)  # not Pillow by its name: a device or a pipe need not end
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's opinions on large or odd files
            with Image.open(io.BytesIO(data)) as opened:
                grey = _grey(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise click.ClickException(f"{path}: not a picture that Pillow can open") from None
    except Image.DecompressionBombError as error:
        raise click.ClickException(f"{path}: {error}") from None
    except (SyntaxError, ValueError, EOFError, OSError) as error:
        raise click.ClickException(f"{path}: a damaged picture: {error}") from None
    return Picture(path.name, np.ascontiguousarray(grey, np.uint8))


def _grey(image: Image.Image) -> Image.Image:
    """8-bit grey. Deep pictures are stretched to their own darkest and lightest pixel."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        deep = np.nan_to_num(np.asarray(image, np.float64))
        low, high = float(deep.min()), float(deep.max())
        scaled = (deep - low) * (255 / (high - low)) if high > low else np.zeros_like(deep)
        return Image.fromarray(scaled.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")


def numpy_sobel(pixels: Pixels) -> Pixels:
    """What the service sobel must compute: |gx| + |gy|, at most 255, border 0."""
    import numpy as np

    result = np.zeros_like(pixels)
    if min(pixels.shape) < 3:
        return result
    wide = pixels.astype(np.int16)
    smooth = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    slope = wide[2:] - wide[:-2]
    gx = smooth[:, 2:] - smooth[:, :-2]
    gy = slope[:, :-2] + 2 * slope[:, 1:-1] + slope[:, 2:]
    result[1:-1, 1:-1] = np.minimum(np.abs(gx) + np.abs(gy), 255)
    return result


def save_pair(path: Path, picture: Picture, edges: Pixels, captions: tuple[str, str]) -> None:
    """A PNG with before and after side by side, each with its caption."""
    from PIL import Image, ImageDraw, ImageFont

    halves = [_panel(Image.fromarray(pixels)) for pixels in (picture.pixels, edges)]
    width, height = halves[0].size
    size = max(13, width // 32)
    margin = size
    font = ImageFont.load_default(size)
    sheet = Image.new("L", (2 * width + 3 * margin, height + 3 * margin + size // 2), 255)
    draw = ImageDraw.Draw(sheet)
    for index, (half, caption) in enumerate(zip(halves, captions, strict=True)):
        left = margin + index * (width + margin)
        sheet.paste(half, (left, margin))
        draw.text(
            (left, margin + height + margin // 2), _fit(caption, width, font), fill=40, font=font
        )
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_file(path, buffer.getbuffer())


def _panel(image: Image.Image) -> Image.Image:
    """Large enough for a caption, small enough to be looked at."""
    from PIL import Image

    width, height = image.size
    if width < _PANEL_MIN:
        factor = -(-_PANEL_MIN // width)
        if height * factor <= 4 * _PANEL_MAX:
            return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    if max(width, height) > _PANEL_MAX:
        image = image.copy()
        image.thumbnail((_PANEL_MAX, _PANEL_MAX))
    return image


def _fit(caption: str, width: int, font: Any) -> str:
    while caption and font.getlength(caption) > width:
        caption = caption[:-4] + "..." if len(caption) > 4 else ""
    return caption
