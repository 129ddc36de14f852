"""What an image file held before it became uint8 pixels, and what that conversion did to a whole set of images.

Decoding converts by stated rules (see :mod:`.decode`). Nothing of that is an error, but a person who points a colour
bundle at a mono camera should read it once per run, not find it in the scores.
"""

from collections import Counter
from dataclasses import dataclass

from ...core.words import counted

GREY = "grey"
GREY_PALETTE = "grey palette"

# Depths that cameras have and store in the lower bits of 16; the first that holds every value is what is suggested.
_CAMERA_BITS = (8, 10, 12, 14)


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What one image file holds.

    Attributes:
        file_format: "PNG", "JPEG", "BMP", "TIFF" or "WebP".
        stored_channels: "grey", "RGB", "CMYK", "palette", or "grey palette" where every colour of it is a grey.
        stored_bits: bits per sample, 1 to 64; of a palette, the 8 bits of its colours.
        sample_format: "uint", "int" or "float".
        has_alpha: an alpha channel or a transparent colour is stored.
        num_extra_channels: further channels that TIFF declares as neither colour nor alpha.
        largest_value: largest stored value of an integer image deeper than 8 bits, None for all others. Where only
            the upper byte of 16-bit colour was read, the largest value that has this upper byte.
        orientation: 1 to 8 as EXIF numbers them; 1 is upright.
    """

    file_format: str
    stored_channels: str
    stored_bits: int = 8
    sample_format: str = "uint"
    has_alpha: bool = False
    num_extra_channels: int = 0
    largest_value: int | None = None
    orientation: int = 1

    @property
    def is_grey(self) -> bool:
        """Whether one value per pixel says everything."""
        return self.stored_channels in (GREY, GREY_PALETTE)

    @property
    def integer_depth(self) -> int | None:
        """Bits that count as this image's depth, 9 to 16; None for float images and for 8 bits and fewer."""
        if self.sample_format == "float" or self.stored_bits <= 8:
            return None
        return min(self.stored_bits, 16)


class Conversions:
    """Counts what decoding did to a set of images; one ``add`` per image, in any order.

    Args:
        channels: 3 or 1, as the images are decoded.
        bit_depth: 8 to 16 or None, as the images are decoded.
        of_scans: whether they are the colours of scans, which are read without a bit depth.
    """

    def __init__(self, *, channels: int, bit_depth: int | None = None, of_scans: bool = False) -> None:
        self.channels = channels
        self.bit_depth = bit_depth
        self.of_scans = of_scans
        self.num_images = 0
        self._num: Counter[str] = Counter()
        self._num_by_depth: Counter[int] = Counter()
        self._largest_in_16: int | None = None

    def add(self, facts: ImageFacts) -> None:
        """Count one image."""
        self.num_images += 1
        self._num["repeated_to_rgb"] += self.channels == 3 and facts.is_grey
        self._num["reduced_to_luma"] += self.channels == 1 and not facts.is_grey
        self._num["cmyk_to_rgb"] += facts.stored_channels == "CMYK"
        self._num["alpha_dropped"] += facts.has_alpha
        self._num["extra_channels_dropped"] += facts.num_extra_channels > 0
        self._num["float_scaled"] += facts.sample_format == "float"
        self._num["turned_upright"] += facts.orientation != 1
        depth = facts.integer_depth
        if depth is not None:
            self._num_by_depth[depth] += 1
            if depth == 16 and facts.largest_value is not None:
                self._largest_in_16 = max(self._largest_in_16 or 0, facts.largest_value)

    @property
    def suggested_bit_depth(self) -> int | None:
        """8, 10, 12 or 14 where all 16-bit images stay below that many bits and ``bit_depth`` is None."""
        if self.bit_depth is not None or not self._largest_in_16:
            return None
        return next((bits for bits in _CAMERA_BITS if self._largest_in_16 < 2**bits), None)

    def summary_lines(self) -> tuple[str, ...]:
        """What a person should read, one sentence per kind of conversion; empty where nothing was converted."""
        said = [_SENTENCES[kind].format(self._of_all(num)) for kind, num in self._num.items() if num]
        for depth, num in sorted(self._num_by_depth.items()):
            shift = (self.bit_depth or depth) - 8
            said.append(f"{self._of_all(num)} of {depth} bits: reduced to 8 bits, value >> {shift}.")
        if (bits := self.suggested_bit_depth) is not None:
            limit, num = 2**bits - 1, self._num_by_depth[16]
            cure = "save the colours as 8-bit RGB" if self.of_scans else f"give --bit-depth {bits}"
            said.append(
                f"{bits} bits in 16: no value above {limit} in any of the {num} 16-bit images; they use "
                f"1/{2 ** (16 - bits)} of the range and become 0 to {limit >> 8}. If the camera gives {bits} bits, "
                f"{cure}."
            )
        if self.bit_depth is not None and self.num_images and not self._num_by_depth:
            said.append(
                f"bit_depth (--bit-depth) is {self.bit_depth} and changed nothing: none of the {self.num_images} "
                "images is an integer image deeper than 8 bits."
            )
        return tuple(said)

    def to_dict(self) -> dict[str, object]:
        """JSON: counts per conversion, images per depth above 8 bits, the largest 16-bit value, the suggestion."""
        return {
            "num_images": self.num_images,
            "channels": self.channels,
            "bit_depth": self.bit_depth,
            **{kind: self._num[kind] for kind in _SENTENCES},
            "reduced_to_8_bits": {str(depth): num for depth, num in sorted(self._num_by_depth.items())},
            "largest_16_bit_value": self._largest_in_16,
            "suggested_bit_depth": self.suggested_bit_depth,
        }

    def _of_all(self, num: int) -> str:
        return f"{num} of {counted(self.num_images, 'image')}"


_SENTENCES = {
    "repeated_to_rgb": "{}: grey, repeated to R, G and B for a colour bundle.",
    "reduced_to_luma": "{}: colour, reduced to luma (0.299 R + 0.587 G + 0.114 B) for a mono bundle.",
    "cmyk_to_rgb": "{}: CMYK, converted to RGB without a colour profile.",
    "alpha_dropped": "{}: alpha channel or transparent colour dropped; the stored colour counts.",
    "extra_channels_dropped": "{}: further TIFF channels dropped; grey or RGB counts.",
    "float_scaled": "{}: float, read as round(255 x) for x in [0, 1].",
    "turned_upright": "{}: turned or mirrored as the orientation tag says.",
}
