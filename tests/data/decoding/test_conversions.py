"""What is said about a set of images: nothing where nothing was converted, counts and one hint else."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.data.decoding.conversions import Conversions, ImageFacts
from lineproof.data.decoding.decode import decode_with_facts

GREY = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)
RGB = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def facts_of(tmp_path: Path, image: Image.Image, *, suffix: str = "png", **options) -> ImageFacts:
    path = tmp_path / f"a.{suffix}"
    image.save(path, **options)
    return decode_with_facts(path).facts


def palette_image(colours: list[int]) -> Image.Image:
    image = Image.fromarray(GREY % (len(colours) // 3))
    image.putpalette(colours)
    return image


def test_facts_of_each_kind_of_file(tmp_path: Path) -> None:
    grey, rgb = Image.fromarray(GREY), Image.fromarray(RGB)
    assert facts_of(tmp_path, grey) == ImageFacts(file_format="PNG", stored_channels="grey")
    assert facts_of(tmp_path, rgb, suffix="bmp") == ImageFacts(file_format="BMP", stored_channels="RGB")
    assert facts_of(tmp_path, grey, suffix="bmp") == ImageFacts(file_format="BMP", stored_channels="grey")
    assert facts_of(tmp_path, grey, suffix="jpg") == ImageFacts(file_format="JPEG", stored_channels="grey")
    assert facts_of(tmp_path, rgb, suffix="webp") == ImageFacts(file_format="WebP", stored_channels="RGB")
    assert facts_of(tmp_path, grey.convert("1")) == ImageFacts(file_format="PNG", stored_channels="grey", stored_bits=1)
    assert facts_of(tmp_path, rgb.convert("RGBA"), suffix="tif") == ImageFacts(
        file_format="TIFF", stored_channels="RGB", has_alpha=True
    )
    assert facts_of(tmp_path, grey.convert("LA")) == ImageFacts(
        file_format="PNG", stored_channels="grey", has_alpha=True
    )
    assert facts_of(tmp_path, rgb.convert("CMYK"), suffix="jpg").stored_channels == "CMYK"
    assert facts_of(tmp_path, palette_image([9, 8, 7, 1, 2, 3])).stored_channels == "palette"
    assert facts_of(tmp_path, palette_image([9, 9, 9, 1, 1, 1])).stored_channels == "grey palette"
    assert facts_of(tmp_path, palette_image([9, 9, 9, 1, 1, 1]), transparency=1).has_alpha
    assert facts_of(tmp_path, rgb, transparency=(1, 2, 3)).has_alpha
    wide = facts_of(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 17))
    assert wide == ImageFacts(file_format="PNG", stored_channels="grey", stored_bits=16, largest_value=4335)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert facts_of(tmp_path, grey, exif=exif).orientation == 6


def some(num: int, **values) -> list[ImageFacts]:
    values = {"file_format": "PNG", "stored_channels": "grey", **values}
    return [ImageFacts(**values)] * num


def sentences_of(facts: list[ImageFacts], *, channels: int, bit_depth: int | None = None) -> tuple[str, ...]:
    conversions = Conversions(channels=channels, bit_depth=bit_depth)
    for item in facts:
        conversions.add(item)
    return conversions.summary_lines()


@pytest.mark.parametrize(("channels", "stored"), [(1, "grey"), (3, "RGB"), (3, "palette")])
def test_nothing_is_said_where_nothing_was_converted(channels: int, stored: str) -> None:
    conversions = Conversions(channels=channels)
    for facts in some(5, stored_channels=stored):
        conversions.add(facts)
    assert conversions.summary_lines() == ()
    assert conversions.num_images == 5
    assert sentences_of([], channels=channels, bit_depth=12) == ()


def test_each_conversion_is_counted() -> None:
    facts = some(3) + some(2, stored_channels="RGB", has_alpha=True) + some(1, stored_channels="CMYK")
    facts += some(1, stored_channels="RGB", orientation=8) + some(2, stored_channels="RGB", num_extra_channels=1)
    facts += some(1, sample_format="float", stored_bits=32) + some(2, stored_bits=12, largest_value=4095)
    assert sentences_of(facts, channels=3) == (
        "6 of 12 images: grey, repeated to R, G and B for a colour bundle.",
        "1 of 12 images: CMYK, converted to RGB without a colour profile.",
        "2 of 12 images: alpha channel or transparent colour dropped; the stored colour counts.",
        "2 of 12 images: further TIFF channels dropped; grey or RGB counts.",
        "1 of 12 images: float, read as round(255 x) for x in [0, 1].",
        "1 of 12 images: turned or mirrored as the orientation tag says.",
        "2 of 12 images of 12 bits: reduced to 8 bits, value >> 4.",
    )
    assert sentences_of(facts, channels=1)[0] == (
        "6 of 12 images: colour, reduced to luma (0.299 R + 0.587 G + 0.114 B) for a mono bundle."
    )


def test_twelve_bits_in_sixteen_are_noticed_over_the_whole_set() -> None:
    facts = some(3, stored_bits=16, largest_value=4095) + some(1, stored_bits=16, largest_value=900) + some(1)
    assert sentences_of(facts, channels=1) == (
        "4 of 5 images of 16 bits: reduced to 8 bits, value >> 8.",
        "12 bits in 16: no value above 4095 in any of the 4 16-bit images; they use 1/16 of the range and become 0 "
        "to 15. If the camera gives 12 bits, give --bit-depth 12.",
    )
    assert sentences_of(facts, channels=1, bit_depth=12) == (
        "4 of 5 images of 16 bits: reduced to 8 bits, value >> 4.",
    )
    above = some(1, stored_bits=16, largest_value=16384)
    assert len(sentences_of(facts + above, channels=1)) == 1
    assert sentences_of(some(2, stored_bits=16, largest_value=0), channels=1) == (
        "2 of 2 images of 16 bits: reduced to 8 bits, value >> 8.",
    )
    for largest, bits in ((255, 8), (256, 10), (1023, 10), (1024, 12), (4096, 14), (16383, 14), (16384, None)):
        conversions = Conversions(channels=1)
        conversions.add(some(1, stored_bits=16, largest_value=largest)[0])
        assert conversions.suggested_bit_depth == bits


def test_colours_of_scans_are_not_sent_to_an_option_that_scans_refuse() -> None:
    conversions = Conversions(channels=3, of_scans=True)
    for facts in some(2, stored_bits=16, largest_value=4095):
        conversions.add(facts)
    (said,) = [line for line in conversions.summary_lines() if "12 bits in 16" in line]
    assert said.endswith("If the camera gives 12 bits, save the colours as 8-bit RGB.")


def test_a_bit_depth_without_effect_is_said() -> None:
    assert sentences_of(some(4), channels=1, bit_depth=12) == (
        "bit_depth (--bit-depth) is 12 and changed nothing: none of the 4 images is an integer image deeper than 8 "
        "bits.",
    )


def test_the_dictionary_is_json_and_facts_travel_between_processes() -> None:
    conversions = Conversions(channels=3)
    for facts in some(2, stored_bits=16, largest_value=4000) + some(1, has_alpha=True):
        conversions.add(pickle.loads(pickle.dumps(facts)))
    assert json.loads(json.dumps(conversions.to_dict())) == {
        "num_images": 3, "channels": 3, "bit_depth": None, "repeated_to_rgb": 3, "reduced_to_luma": 0,
        "cmyk_to_rgb": 0, "alpha_dropped": 1, "extra_channels_dropped": 0, "float_scaled": 0, "turned_upright": 0,
        "reduced_to_8_bits": {"16": 2}, "largest_16_bit_value": 4000, "suggested_bit_depth": 12,
    }  # fmt: skip
