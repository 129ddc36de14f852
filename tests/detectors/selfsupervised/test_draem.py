import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from PIL import Image as PillowImage  # noqa: E402

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.detectors.selfsupervised.draem import Draem, DraemConfig, rate_left  # noqa: E402
from lineproof.detectors.selfsupervised.draem_networks import (  # noqa: E402
    DiscriminativeNetwork,
    ReconstructiveNetwork,
    focal_loss,
    structural_similarity,
)
from lineproof.detectors.selfsupervised.pairs import PairMaker  # noqa: E402
from lineproof.detectors.training.images import image_files  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402

TINY = {
    "resize_px": (64, 96),
    "crop_px": (64, 96),
    "reconstructive_width": 4,
    "discriminative_width": 4,
    "epochs": 2,
    "batch_size": 4,
}


def test_networks_have_the_papers_size():
    with torch.device("meta"):
        networks = ReconstructiveNetwork(128), DiscriminativeNetwork(64)
    counts = [sum(item.numel() for item in network.parameters()) for network in networks]
    np.testing.assert_allclose(counts, [69.05e6, 28.37e6], rtol=5e-3)
    np.testing.assert_allclose(sum(counts), 97.4e6, rtol=5e-3)


def test_weights_begin_as_the_authors_draw_them():
    torch.manual_seed(0)
    detector = Draem(DraemConfig(**TINY | {"reconstructive_width": 32, "discriminative_width": 32}))
    for network in (detector.reconstructive, detector.discriminative):
        drawn = {torch.nn.Conv2d: [], torch.nn.BatchNorm2d: []}
        for module in network.modules():
            if type(module) in drawn:
                drawn[type(module)].append(module.weight.detach().flatten())
            if isinstance(module, torch.nn.BatchNorm2d):
                assert not module.bias.any()
        assert float(network.last.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
        for kind, mean in ((torch.nn.Conv2d, 0.0), (torch.nn.BatchNorm2d, 1.0)):
            values = torch.cat(drawn[kind])
            assert float(values.mean()) == pytest.approx(mean, abs=2e-3)
            assert float(values.std()) == pytest.approx(0.02, rel=0.05)


def test_every_parameter_is_the_methods_own():
    detector = Draem(DraemConfig(**TINY))
    assert detector.backbone_parameters() == []
    assert detector.extra_parameters() == sum(item.numel() for item in detector.parameters())
    assert detector.normalisation == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_score_is_the_highest_window_mean_with_zeros_outside():
    ndimage = pytest.importorskip("scipy.ndimage")
    torch.manual_seed(0)
    detector = Draem(DraemConfig(**TINY)).eval()
    images = torch.rand(3, 3, 64, 96)
    for module in (detector, detector.lower().eval()):
        with torch.inference_mode():
            score, anomaly_map = module(images)
        means = [ndimage.uniform_filter(item, 21, mode="constant") for item in anomaly_map.double().numpy()]
        np.testing.assert_allclose(score.numpy(), [item.max() for item in means], rtol=1e-5)
        assert float(anomaly_map.min()) >= 0.0
        assert float(anomaly_map.max()) <= 1.0


def test_structural_similarity_is_scikit_images_definition():
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = np.random.default_rng(0)
    first = generator.random((1, 2, 24, 24))
    second = np.clip(first + 0.2 * generator.normal(size=first.shape), 0.0, 1.0)

    def smooth(image):
        return ndimage.gaussian_filter(image, (0, 0, 1.5, 1.5), mode="constant", radius=(0, 0, 5, 5))

    mean_a, mean_b = smooth(first), smooth(second)
    var_a, var_b = smooth(first**2) - mean_a**2, smooth(second**2) - mean_b**2
    covariance = smooth(first * second) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    wanted = (top / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))).mean()
    got = structural_similarity(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(float(got), wanted, rtol=1e-9)
    np.testing.assert_allclose(float(structural_similarity(torch.from_numpy(first), torch.from_numpy(first))), 1.0)


def test_focal_loss_is_weighted_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, generator=generator, dtype=torch.float64)
    masks = (torch.rand(2, 8, 8, generator=generator) > 0.7).double()
    entropy = F.cross_entropy(logits, masks.long(), reduction="none")
    wanted = (entropy * (1.0 - torch.exp(-entropy)) ** 2).mean()
    np.testing.assert_allclose(float(focal_loss(logits, masks)), float(wanted), rtol=1e-3)


def test_learning_rate_falls_twice():
    config = DraemConfig(epochs=700)
    rates = [rate_left(config, epoch) for epoch in (0, 559, 560, 629, 630, 699)]
    np.testing.assert_allclose(rates, [1.0, 1.0, 0.2, 0.2, 0.04, 0.04])


def test_an_image_is_drawn_again_with_another_anomaly(sample_folder):
    config = DraemConfig(**TINY | {"clean_share": 0.0, "rotation_share": 0.0})
    dataset = open_dataset(sample_folder, category="flange")
    images = image_set(Draem(config), [sample.path for sample in dataset.train])
    count = len(images)
    drawn = torch.tensor([2, 2 + count, 2 + 2 * count, 2])
    maker = PairMaker(config.crop_px, texture_source="", rotation_share=0.0, clean_share=0.0, seed=0)
    _, originals, masks = maker.pairs(images, drawn, stream=0)
    for original in originals[1:]:
        np.testing.assert_array_equal(original.numpy(), originals[0].numpy())
    np.testing.assert_array_equal(masks[3].numpy(), masks[0].numpy())
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


def test_an_epoch_is_as_long_as_its_draws(sample_folder, tmp_path):
    seen = set()
    config = DraemConfig(**TINY | {"epochs": 1, "draws_per_image": 3, "batch_size": 4})
    dataset = open_dataset(sample_folder, category="flange")
    record = train("draem", config, dataset=dataset, run=tmp_path / "run", progress=lambda *now: seen.add(now))
    assert max(done for stage, done, *_ in seen if stage == "training") == -(-3 * record.training.num_images // 4)


def test_a_resumed_run_takes_the_steps_of_an_unbroken_one(sample_folder, tmp_path):
    from safetensors.torch import load_file

    dataset = open_dataset(sample_folder, category="flange")

    class KilledError(Exception):
        pass

    def kill(stage, done, *_):
        if stage == "training" and done == 3:
            raise KilledError

    config = DraemConfig(**TINY)
    often = TrainOptions(save_every_s=1e-9)
    train("draem", config, dataset=dataset, run=tmp_path / "whole")
    with pytest.raises(KilledError):
        train("draem", config, dataset=dataset, run=tmp_path / "broken", options=often, progress=kill)
    assert (tmp_path / "broken" / "trainer.safetensors").exists()
    train("draem", config, dataset=dataset, run=tmp_path / "broken")
    whole, broken = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "broken"))
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_no_bit(sample_folder, tmp_path):
    from safetensors.torch import load_file

    dataset = open_dataset(sample_folder, category="flange")
    for num_workers in (0, 2):
        options = TrainOptions(num_workers=num_workers)
        train("draem", DraemConfig(**TINY), dataset=dataset, run=tmp_path / str(num_workers), options=options)
    alone, helped = (load_file(tmp_path / name / CHECKPOINT) for name in ("0", "2"))
    for name, value in alone.items():
        np.testing.assert_array_equal(helped[name].numpy(), value.numpy(), err_msg=name)


def test_textures_come_from_a_folder(tmp_path, sample_folder):
    (tmp_path / "textures" / "dotted").mkdir(parents=True)
    PillowImage.new("RGB", (80, 70), (255, 0, 0)).save(tmp_path / "textures" / "dotted" / "a.png")
    config = DraemConfig(**TINY | {"epochs": 1, "texture_source": str(tmp_path / "textures")})
    record = train("draem", config, dataset=open_dataset(sample_folder, category="flange"), run=tmp_path / "run")
    assert record.fit["textures"] == "1 file"
    with pytest.raises(BadInputError, match="no folder with images"):
        image_files(tmp_path / "nowhere", parameter="texture_source", without="for noise")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is 'resnet18' and weights 'none', but it is trained from scratch"),
        ({"crop_px": (128, 100)}, "crop_px is 128x100; it is halved five times"),
        ({"window_px": 20}, "window_px is 20; expected an odd number"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Draem(DraemConfig(**settings))


@pytest.mark.slow
def test_first_convolutions_alone_stay_in_fp32():
    """They see pixels; and nothing between them and the logit is cast back on its way."""
    ir = pytest.importorskip("onnx_ir")
    from lineproof.core.spec import Preprocessing
    from lineproof.export.passes.fp16 import to_half
    from lineproof.export.to_onnx import export_onnx

    detector = Draem(DraemConfig(**TINY)).eval()
    spec = Preprocessing.of((64, 96, 3), (64, 96), (64, 96), normalisation=detector.normalisation)
    model = export_onnx(detector, spec, max_batch=1)
    to_half(model, detector.half_scopes)
    nodes = [node for node in model.graph if node.name.startswith(("backbone/", "head/"))]
    full = [node.name for node in nodes if node.op_type == "Conv" and node.outputs[0].dtype == ir.DataType.FLOAT]
    assert [name.rpartition("/")[0] for name in full] == [
        f"{stage}/network/encoder/0/0/0" for stage in ("backbone", "head")
    ]
    casts = [node for node in nodes if node.op_type == "Cast"]
    # Into fp16 after either first convolution; out of it for the restored image.
    assert [node.outputs[0].dtype for node in casts].count(ir.DataType.FLOAT16) == 2
    assert len(casts) == 3
