"""One small PaDiM run on a tiny network with random weights: exported within seconds."""

import pytest

SETTINGS = {
    "backbone": "test_resnet",
    "weights": "random",
    "resize_px": 64,
    "crop_px": 64,
    "num_features": 12,
}


@pytest.fixture(scope="session")
def sample_dataset(tmp_path_factory):
    """A sample of 96x96 pixels; 8 images to fit on, 4 held out."""
    from lineproof.data.dataset import open_dataset
    from lineproof.data.sample.write import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, num_train=12, num_test_good=2, num_test_defect=6, size_px=96)
    return open_dataset(folder, category="flange")


@pytest.fixture(scope="session")
def run_folder(sample_dataset, tmp_path_factory):
    """A finished run; tests must not write into it."""
    pytest.importorskip("timm")
    from lineproof.detectors.base import make_config
    from lineproof.detectors.training.options import TrainOptions
    from lineproof.detectors.training.train import train

    run = tmp_path_factory.mktemp("padim") / "run"
    train("padim", make_config("padim", SETTINGS), dataset=sample_dataset, run=run, options=TrainOptions(holdout=1 / 3))
    return run


@pytest.fixture(scope="session")
def bundle_of(run_folder, tmp_path_factory):
    """A function from options to the run's bundle; each is exported once and must be left as it is."""
    from lineproof.export.bundle import export_bundle
    from lineproof.export.options import ExportOptions

    made = {}

    def get(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = export_bundle(
                run_folder, tmp_path_factory.mktemp("bundle") / "a.bundle", options=ExportOptions(**options)
            )
        return made[key]

    return get
