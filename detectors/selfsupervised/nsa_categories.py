"""What the authors of NSA (arXiv 2109.15222) set for each category of MVTec AD, by the parameters of NsaConfig.

What a category does not name is the default of ``NsaConfig``, which is that of an aligned object without a background
that tells it apart. For a part of your own take the settings of the category that is most like it.
"""

Setting = int | float | str | bool

#: Textures of any kind: a larger view, mixed gradients, patches of more sizes, flips.
TEXTURE: dict[str, Setting] = {
    "resize_px": 264, "crop_px": 256, "shift_px": 8, "flips_vertically": True,
    "blending": "mixed", "scale_low": 0.5, "scale_high": 2.0, "num_patches": 4,
}  # fmt: skip
_ON_BRIGHT: dict[str, Setting] = {"background_level": 200, "background_threshold": 60}
_ON_DARK: dict[str, Setting] = {"background_level": 20, "background_threshold": 20}
#: Objects that lie turned on their images, or, as bottles, look the same when turned.
_TURNED: dict[str, Setting] = {"rotation_degrees": 5.0}
_LONG: dict[str, Setting] = {"epochs": 560}


def _label(steepness: float, middle: float) -> dict[str, Setting]:
    return {"label_steepness": steepness, "label_middle": middle}


def _largest(height: float, width: float) -> dict[str, Setting]:
    return {"largest_height": height, "largest_width": width}


BY_CATEGORY: dict[str, dict[str, Setting]] = {
    "bottle": _ON_BRIGHT | _TURNED | _label(1 / 12, 24.0) | {"object_share": 0.7},
    "cable": _label(1 / 12, 24.0) | {"smallest_half": 0.05},
    "capsule": _ON_BRIGHT | _label(1 / 2, 4.0) | _largest(0.15, 0.4) | {"object_share": 0.7},
    "hazelnut": _ON_DARK | _TURNED | _LONG | _label(1 / 12, 24.0) | _largest(0.35, 0.35) | {"object_share": 0.7},
    "metal_nut": _ON_DARK | _TURNED | _LONG | _label(1 / 3, 7.0) | {"object_share": 0.5},
    "pill": _ON_DARK | _label(1 / 3, 7.0) | _largest(0.2, 0.4) | {"object_share": 0.7},
    "screw": _ON_BRIGHT | _TURNED | _LONG | _label(1.0, 3.0) | _largest(0.12, 0.12)
    | {"object_share": 0.5, "num_patches": 4},
    "toothbrush": _ON_DARK | _label(1 / 6, 15.0) | _largest(0.4, 0.2) | {"object_share": 0.25},
    "transistor": _label(1 / 6, 15.0),
    "zipper": _ON_BRIGHT | _label(1 / 6, 15.0) | _largest(0.4, 0.2) | {"object_share": 0.7, "num_patches": 4},
    "carpet": TEXTURE | _label(1 / 3, 7.0),
    "grid": TEXTURE | _label(1 / 3, 7.0),
    "leather": TEXTURE | _label(1 / 3, 7.0),
    "tile": TEXTURE | _label(1 / 3, 7.0),
    "wood": TEXTURE | _label(1 / 6, 15.0),
}  # fmt: skip
