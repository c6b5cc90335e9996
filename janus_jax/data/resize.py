"""Bicubic resizing: Pillow's, or the same filter in vector instructions where the extra `fast` is
installed."""

import threading

from PIL import Image

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None


def bicubic(image, size, box, fast=False):
    """The part `box` (left, top, right, bottom) of an RGB `PIL.Image`, resized to `size` (width,
    height).

    Pillow's pixels, unless fast and cykooz_resizer is there: about five times as fast, then, and at
    most two levels of 255 away in about one per cent of the values. It is called for the rows, then
    for the columns, since Pillow rounds and clips in between. (Pillow 13 takes the columns of some
    tall pictures first, which is up to seven levels away from what Pillow 12 makes of photographs;
    here it is always rows first, as when Janus was trained.)
    """
    if not fast or _resizer is None:
        return image.resize(size, Image.Resampling.BICUBIC, box=box)
    left, top, right, bottom = box
    reach = int(2 * max((bottom - top) / size[1], 1)) + 2  # the filter's, above and below the part
    first = max(int(top) - reach, 0)
    end = min(int(bottom) + reach, image.size[1])
    rows = _resizer.resize(image, (size[0], end - first), (left, first, right, end))
    return _resizer.resize(rows, size, (0, top - first, size[0], bottom - first))


class _Resizer(threading.local):
    """cykooz_resizer's state, a thread each: it holds buffers, and takes one call at a time."""

    def __init__(self):
        self.resizer = cykooz_resizer.Resizer()
        self.filter = cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.catmull_rom)

    def resize(self, image, size, box):
        left, top, right, bottom = box
        part = cykooz_resizer.CropBox(left, top, right - left, bottom - top)
        out = Image.new("RGB", size)
        self.resizer.resize_pil(
            image, out, cykooz_resizer.ResizeOptions(self.filter, crop_box=part)
        )
        return out


_resizer = _Resizer() if cykooz_resizer else None
