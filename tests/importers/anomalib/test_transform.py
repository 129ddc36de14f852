"""Transforms as releases keep them, and what no graph can hold."""

import sys
import types

import pytest

from lineproof.core.errors import BadInputError, UsageError
from lineproof.importers.anomalib.checkpoint import read_checkpoint
from lineproof.importers.anomalib.transform import read_transform

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
RESIZE = {"size": [96, 128], "interpolation": "bilinear", "max_size": None, "antialias": True}
NORMALISE = {"mean": MEAN, "std": STD, "inplace": False}


def plain(*steps):
    listed = [{"class_path": f"torchvision.transforms.v2.{name}", "init_args": values} for name, values in steps]
    return {"class_path": "torchvision.transforms.v2.Compose", "init_args": {"transforms": listed}}


@pytest.fixture
def pickled(monkeypatch):
    """A function that makes steps as objects of torchvision's classes, for a file that is read without them."""
    module = types.ModuleType("torchvision.transforms.v2._stand_in")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def make(*steps, wrapped=None):
        items = []
        for name, values in (*steps, ("Compose", {})):
            kind = type(name, (), {"__module__": module.__name__})
            setattr(module, name, kind)
            items.append(kind())
            items[-1].__dict__.update(values, training=True, _modules={}, _forward_hooks={})
        compose = items.pop()
        compose.transforms = items
        if wrapped is None:
            return compose
        kind = type(wrapped, (), {"__module__": module.__name__})
        setattr(module, wrapped, kind)
        whole = kind()
        whole.__dict__.update({"_modules": {"transform": compose}, "training": True})
        return whole

    return make


@pytest.fixture
def read(contents, write):
    """A function that puts a transform where a release keeps it and reads it back."""

    def reread(stored, release, **options):
        values = contents()
        del values["anomalib_pre_processor_config"]
        if release == "2.7":
            values["anomalib_pre_processor_config"] = {"transform": stored}
        elif release == "2.2":
            values["hyper_parameters"]["pre_processor"] = stored
        else:
            values["transform"] = stored
        return read_transform(read_checkpoint(write(values)), **options)

    return reread


@pytest.mark.parametrize("has_crop", [False, True])
def test_all_releases_keep_the_same_in_their_own_way(has_crop, read, pickled):
    steps = [("Resize", RESIZE), ("Normalize", NORMALISE)]
    if has_crop:
        steps.insert(1, ("CenterCrop", {"size": (64, 80)}))
    for found in (
        read(plain(*steps), "2.7"),
        read(pickled(*steps, wrapped="PreProcessor"), "2.2"),
        read(pickled(*steps), "1.2"),
    ):
        assert found.resize_px == (96, 128)
        assert found.crop_px == ((64, 80) if has_crop else (96, 128))
        assert (found.mean, found.std, found.notes) == (tuple(MEAN), tuple(STD), ())


def test_a_resize_alone_normalises_nothing(read):
    step = plain(("Resize", RESIZE))["init_args"]["transforms"][0]
    for stored in (plain(("Resize", RESIZE)), plain(("Resize", RESIZE), ("Normalize", NORMALISE)), step):
        assert read(stored, "2.7").resize_px == (96, 128)
    found = read(step, "2.7")
    assert (found.mean, found.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("Resize", RESIZE | {"size": 256})], r"Resize of its transform has size 256; expected height and width"),
        ([("Resize", RESIZE | {"size": [256]})], r"has size \[256\]; expected height and width"),
        ([("Resize", RESIZE | {"interpolation": "bicubic"})], "has interpolation bicubic, antialias True"),
        ([("Resize", RESIZE | {"antialias": False})], "interpolation bilinear, antialias False, max_size None"),
        ([("Resize", RESIZE | {"max_size": 512})], "max_size 512; expected bilinear, True, None"),
        ([("Normalize", NORMALISE)], "resizes nothing"),
        ([("CenterCrop", {"size": [8, 8]}), ("Resize", RESIZE)], r"step 1 of 2 of its transform is CenterCrop"),
        ([("Resize", RESIZE), ("RandomHorizontalFlip", {"p": 0.5})], r"step 2 of 2 .* RandomHorizontalFlip \(.*0\.5"),
        ([("Resize", RESIZE), ("Normalize", NORMALISE), ("Grayscale", {})], r"step 2 of 3 .* Normalize"),
        ([("Resize", RESIZE), ("Normalize", {"mean": [0.5], "std": STD})], r"has mean \[0\.5\]; expected three"),
        ([("Resize", RESIZE), ("Normalize", {"mean": MEAN})], r"has std None; expected three"),
    ],
)
def test_what_no_graph_can_hold_is_refused(steps, message, read, pickled):
    with pytest.raises(BadInputError, match=message):
        read(plain(*steps), "2.7")
    with pytest.raises(BadInputError, match=message):
        read(pickled(*steps), "1.2")


@pytest.mark.parametrize("stored", [None, False, True, "resize", 3])
def test_a_transform_that_is_not_there_is_said_so(stored, read):
    with pytest.raises(BadInputError, match=r"does not say how its images were resized|a step of its transform is"):
        read(stored, "2.7", model="padim")


def test_the_default_stands_in_where_the_model_was_made_with_it(contents, write):
    def default(name, *, crop=None, **settings):
        values = contents("padim")
        del values["anomalib_pre_processor_config"]
        values["hyper_parameters"] |= {"pre_processor": True, **settings}
        return read_transform(read_checkpoint(write(values)), model=name, crop=crop)

    found = default("padim")
    assert (found.resize_px, found.crop_px) == ((256, 256), (256, 256))
    assert found.mean == (0.485, 0.456, 0.406)
    assert "does not hold it: 256x256, ImageNet normalisation" in found.notes[0]
    assert default("efficient_ad").std == (1.0, 1.0, 1.0)
    assert "not normalised" in default("efficient_ad").notes[0]
    # A release that has this setting crops nothing by default.
    assert default("patchcore", precision="float32").crop_px == (256, 256)
    assert default("patchcore", crop=(224, 224)).crop_px == (224, 224)
    assert "cropped to 224x224" in default("patchcore", crop=(224, 224)).notes[0]
    with pytest.raises(BadInputError, match=r"--crop 224x224 for 2\.0, --crop 256x256 \(no crop\) for 2\.1 and 2\.2"):
        default("patchcore")
    with pytest.raises(UsageError, match=r"--crop\) is 300x224; expected at most 256x256"):
        default("patchcore", crop=(300, 224))
    with pytest.raises(UsageError, match="expected none: this model's default has no crop"):
        default("padim", crop=(224, 224))
    for name, made in (("draem", True), ("padim", False)):
        with pytest.raises(BadInputError, match="does not say how its images were resized"):
            default(name, pre_processor=made)


def test_a_crop_beside_a_transform_is_refused(read):
    with pytest.raises(UsageError, match=r"crop \(--crop\) is 64x64; .* says its crop itself"):
        read(plain(("Resize", RESIZE)), "2.7", crop=(64, 64))


def test_a_class_of_another_package_is_not_torchvisions(read):
    stored = plain(("Resize", RESIZE))
    stored["init_args"]["transforms"][0]["class_path"] = "albumentations.Resize"
    with pytest.raises(BadInputError, match=r"is albumentations\.Resize; expected one of torchvision"):
        read(stored, "2.7")
