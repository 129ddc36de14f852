"""What an image file held before it became uint8 pixels."""

from dataclasses import dataclass

GREY = "grey"
GREY_PALETTE = "grey palette"


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
        largest_value: largest stored value of an integer picture deeper than 8 bits, None for all others. Where only
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
        """Bits that count as this picture's depth, 9 to 16; None for float pictures and for 8 bits and fewer."""
        if self.sample_format == "float" or self.stored_bits <= 8:
            return None
        return min(self.stored_bits, 16)
