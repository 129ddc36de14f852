"""A detector of your own, without an edit of the package: trained, exported and proved on the built-in sample.

Install:  pip install -e '.[train,cpu]'      (in a checkout)
Run:      python examples/custom_detector.py FOLDER      (writes the sample, a run and a bundle into it)
Prints:   how the verdicts of the exported graph compare with PyTorch's.

``DETECTORS`` is a plain dictionary of strings, so that a program may add to it, as is done below. The command
``lineproof`` is another program: it does not know the entry. A detector that it should know belongs in the package.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lineproof.data.dataset import open_dataset
from lineproof.data.sample.write import write_sample
from lineproof.detectors.base import DETECTORS, AbstractDetector, Deployed, DetectorConfig, make_config
from lineproof.detectors.training.train import train
from lineproof.eval.parity.verify import verify
from lineproof.export.bundle import export_bundle


@dataclass(frozen=True)
class PixelStatisticsConfig(DetectorConfig):
    """``smallest_deviation``, of a range of 1, keeps pixels that never change from dividing by zero."""

    backbone: str = "none"
    weights: str = "none"
    smallest_deviation: float = 0.02


class Deviations(nn.Module):
    """How many deviations each pixel is away from the mean of good images: the highest, and a smoothed map of all."""

    def __init__(self, height, width, smallest):
        super().__init__()
        self.smallest = smallest
        self.register_buffer("mean", torch.zeros(3, height, width))
        self.register_buffer("deviation", torch.ones(3, height, width))

    def forward(self, images):
        distance = ((images - self.mean) / (self.deviation + self.smallest)).abs().mean(dim=1, keepdim=True)
        anomaly_map = nn.functional.avg_pool2d(distance, 5, stride=1, padding=2)[:, 0]
        return anomaly_map.amax(dim=(1, 2)), anomaly_map


class PixelStatistics(AbstractDetector[PixelStatisticsConfig]):
    """Mean and deviation of each pixel: enough where every part lies in the same place. No paper, no backbone."""

    config_class = PixelStatisticsConfig
    normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # without a backbone, the method says it itself

    def __init__(self, config):
        super().__init__(config)
        self.deviations = Deviations(*config.crop_px, config.smallest_deviation)

    def fit(self, images, holdout, *, context):  # noqa: ARG002 (nothing is stopped early, nothing is random)
        batch = images.batch(range(len(images)))
        self.deviations.mean, self.deviations.deviation = batch.mean(dim=0), batch.std(dim=0)
        return {"num_images": len(images)}

    def forward(self, images):
        return self.deviations(images)

    def lower(self):
        return Deployed(backbone=nn.Identity(), head=self.deviations, post=nn.Identity())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else sys.exit(__doc__)
    DETECTORS["pixel_statistics"] = f"{__name__}:PixelStatistics"
    write_sample(folder / "sample", num_train=20, num_test_good=4, num_test_defect=8, size_px=96)
    flange = open_dataset(folder / "sample", category="flange")
    config = make_config("pixel_statistics", {"resize_px": 96, "crop_px": 96})
    train("pixel_statistics", config, dataset=flange, run=folder / "run")
    report = verify(export_bundle(folder / "run", folder / "own.bundle"), engine="ort-cpu", dataset=flange)
    print(f"{report.num_frames} frames on ort-cpu: parity {report.state}, {len(report.verdict_flips)} verdicts changed")
