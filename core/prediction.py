"""What an engine returns for a batch of frames: scores and anomaly maps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """Scores and anomaly maps of a batch.

    Attributes:
        score: float32 (N,), larger is more anomalous.
        anomaly_map: float32 (N, h, w), the same scale in every engine.
    """

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
