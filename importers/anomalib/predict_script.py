"""Runs in the Python that anomalib is installed in, never in lineproof's: Engine.predict over a folder of images.

Called as ``python -I predict_script.py CHECKPOINT MODEL IMAGES OUT BATCH``. IMAGES holds files named in the order of
their prediction. OUT gets ``scores.npy`` float32 (N,), ``labels.npy`` bool (N,), ``maps.npy`` float32 (N, h, w) where
the model has maps, and ``version.txt``. Progress is printed as lines ``done N``.
"""

import sys
from pathlib import Path
from typing import Any

IMAGES_AT_ONCE = 256


def without_downloads() -> None:
    """Build backbones without their published weights: those of the checkpoint replace them, whatever they are."""
    import timm
    import torchvision

    original: Any = timm.create_model

    def _create_model(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **{**options, "pretrained": False})

    timm.create_model = _create_model
    api: Any = torchvision.models._api
    for kind in api.WeightsEnum.__subclasses__():
        kind.get_state_dict = lambda _self, *_arguments, **_options: {}
    loading: Any = __import__("torch").nn.Module
    strict = loading.load_state_dict

    def _load_state_dict(self: Any, state: Any, *arguments: Any, **options: Any) -> Any:
        return strict(self, state, *arguments, **options) if state else None

    loading.load_state_dict = _load_state_dict


def main() -> None:
    """Predict."""
    checkpoint, name, images, out, batch = sys.argv[1:6]
    without_downloads()
    import anomalib
    import numpy as np
    import torch
    from anomalib import models
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine
    from torch.utils.data import DataLoader, Subset

    kind: Any = getattr(models, name)
    # DRAEM looks for its textures when it is built, though only its training uses them; any folder of images will do.
    extra = {"dtd_dir": images} if name == "Draem" else {}
    model = kind.load_from_checkpoint(checkpoint, map_location="cpu", visualizer=False, evaluator=False, **extra)
    data = PredictDataset(path=Path(images))
    parts: list[tuple[Any, Any, Any]] = []
    # Engine.predict keeps every batch with its images: some hundred images at a time bound the memory.
    for start in range(0, len(data), IMAGES_AT_ONCE):
        chosen = Subset(data, range(start, min(start + IMAGES_AT_ONCE, len(data))))
        loader = DataLoader(chosen, batch_size=int(batch), collate_fn=data.collate_fn, num_workers=0)
        engine = Engine(accelerator="cpu", logger=False, default_root_dir=out, enable_progress_bar=False)
        for item in engine.predict(model=model, dataloaders=loader, return_predictions=True):
            maps = None if item.anomaly_map is None else item.anomaly_map.float().numpy()
            parts.append((item.pred_score.float().flatten().numpy(), item.pred_label.flatten().numpy(), maps))
        sys.stdout.write(f"done {sum(len(scores) for scores, _, _ in parts)}\n")
        sys.stdout.flush()
    place = Path(out)
    scores, labels, maps = zip(*parts, strict=True)
    np.save(place / "scores.npy", np.concatenate(scores).astype(np.float32))
    np.save(place / "labels.npy", np.concatenate(labels).astype(bool))
    if maps[0] is not None:
        np.save(place / "maps.npy", np.concatenate([item.reshape(-1, *item.shape[-2:]) for item in maps]))
    (place / "version.txt").write_text(f"{anomalib.__version__} torch {torch.__version__}")


if __name__ == "__main__":
    main()
