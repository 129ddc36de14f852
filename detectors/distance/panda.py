"""PANDA: late stages of a pretrained network, adapted until good images lie close together; nearest neighbours.

Reiss, Cohen, Bergman, Hoshen: "PANDA: Adapting Pretrained Features for Anomaly Detection and Segmentation", CVPR 2021,
arXiv 2010.05903.

The stages after the network's map at stride 8 (layer3 and layer4 of a ResNet) learn to bring the pooled features of
the good images near their mean before the training, which stays fixed (compactness loss). If that went on, all would
end in one point. The paper has two ways against it: few epochs (``early_stopping``), or a penalty on changes of those
weights that the pretrained network needs (``ewc``, elastic weight consolidation). Statistics of batch normalisations
never change. The image score is the sum of the two smallest squared distances to the good images' adapted features.

What differs, what is guessed, and why:

- The map is a guess. The authors publish no code of it; here SPADE's pyramid is searched (``pyramid``) with the
  adapted network. Its maps at strides 4 and 8 are frozen: adaptation changes one of its three levels, and which images
  are retrieved.
- The elastic penalty needs the Fisher information of the task that the network was pretrained for. The authors
  estimated it on ImageNet, which is not at hand. Give it as a file (``fisher``), or let it be estimated on the good
  images, with labels drawn from the network's own classifier. That is a guess: a weight that only other images need
  looks unimportant there. So ``early_stopping``, which needs no guess, is the default.
- Sample-wise early stopping, the paper's third way, is left out: it takes the largest score of several checkpoints,
  whose networks would all have to run for every frame.
- Epochs are those of the authors' code, which trains on thousands of images. Few good images make few steps, and
  gradients are clipped to a norm of 1e-3: expect features that have hardly moved, or set ``epochs``.
- ``image_score="map"`` takes the largest value of the map as the score: pooled features hardly see a small defect.

Nothing is added to the network: 0 extra parameters. The fit reports how many of its parameters were trained
(wide_resnet50_2: 62.7 of 66.8 million), and a checkpoint holds them all.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...core.errors import BadInputError, UsageError
from ...core.progress import Progress
from ...core.words import counted
from ..backbones.features import cache_features
from ..backbones.weights import create_network
from ..base import FitContext, TrainedConfig
from ..nn.finite import describe_not_finite
from ..ranges import Count, CountOrZero, NotNegative, Positive, ShareBelowOne
from ..training.devices import moved
from ..training.features import Features, PlainImages
from ..training.images import ImageSet
from ..training.schedules import Schedule
from ..training.task import LossTask, Optimisation
from ..training.trainer import Trainer
from .pyramid import AbstractPyramid, PyramidConfig, RetrievalScore

#: Stages up to the map at this stride stay as they were pretrained.
_FROZEN_STRIDE = 8
_EPOCHS = {"early_stopping": 15, "ewc": 50}

#: Tensors by the name of the network's parameter that they belong to.
Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PandaConfig(PyramidConfig, TrainedConfig):
    """Parameters of PANDA, and those of the gallery.

    Attributes:
        backbone: name of the pretrained network in timm. A guess: SPADE's, since the authors' code has no path for
            MVTec AD; its default is ResNet-152.
        num_retrieved: number K of nearest images that the map is searched in. The whole map is a guess, SPADE's.
        adaptation: ``"early_stopping"`` or ``"ewc"``.
        num_neighbours: nearest images whose squared distances make the image score.
        ewc_weight: weight λ of the elastic penalty ``λ / 2 · Σ F (θ − θ₀)²``.
        fisher: .safetensors file with the diagonal Fisher information of the pretrained network, a tensor for each
            trained parameter under the parameter's name in timm (others are not used); "" estimates it on the good
            images (a guess).
        epochs: number of epochs; 0 for the authors' choice, 15 with early stopping and 50 with the elastic penalty.
        batch_size: images per step.
        learning_rate: learning rate of stochastic gradient descent.
        momentum: its momentum.
        weight_decay: its weight decay, which is added after the gradients were clipped.
        largest_norm: gradients are scaled down to this norm.
    """

    adaptation: Literal["early_stopping", "ewc"] = "early_stopping"
    num_neighbours: Count = 2
    ewc_weight: NotNegative = 1e4
    fisher: str = ""
    epochs: CountOrZero = 0
    batch_size: Count = 32
    learning_rate: Positive = 1e-2
    momentum: ShareBelowOne = 0.9
    weight_decay: NotNegative = 5e-5
    largest_norm: Positive = 1e-3

    @property
    def num_epochs(self) -> int:
        """Number of epochs, the authors' choice where ``epochs`` is 0."""
        return self.epochs or _EPOCHS[self.adaptation]


@final
class Panda(AbstractPyramid[PandaConfig]):
    """PANDA in its training form."""

    config_class = PandaConfig

    def __init__(self, config: PandaConfig) -> None:
        super().__init__(config)
        _check(config)
        network = self.backbone.network
        self.trained = tuple(
            name
            for stage in self.backbone.stages_after(_FROZEN_STRIDE)
            for name, _ in network.get_submodule(stage).named_parameters(prefix=stage)
        )

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:
        """Adapt the late stages, then store the adapted features of the good images."""
        num_kept = self.check_gallery(len(images))
        if num_kept < self.config.num_neighbours:
            raise UsageError(
                f"The gallery holds {counted(num_kept, 'image')}, but num_neighbours is "
                f"{self.config.num_neighbours}. Set "
                "num_images to at least as many; 0 keeps all."
            )
        report = self._adapt(images, holdout, context)
        return {**report, **self.store(images, context)}

    def _adapt(self, images: ImageSet, holdout: ImageSet, context: FitContext) -> dict[str, Any]:
        config, network = self.config, self.backbone.network
        self.to(context.device)
        centre = self._pooled(images, context, "features before").double().mean(0).float()
        target = moved(centre, context.device)

        def holdout_loss() -> float:
            return float(compactness(self._pooled(holdout, context, "held-out features"), centre))

        before = holdout_loss()
        fisher = self._fisher(images, context) if config.adaptation == "ewc" else {}
        parameters = {name: network.get_parameter(name).requires_grad_() for name in self.trained}
        anchors = {name: item.detach().clone() for name, item in parameters.items()}
        optimiser = torch.optim.SGD(
            parameters.values(), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )

        def loss(batch: Features) -> Tensor:
            (here,) = moved(batch, context.device)
            value = compactness(self.backbone(here)[-1].mean((2, 3)), target)
            return value + elastic_penalty(parameters, anchors, fisher, weight=config.ewc_weight) if fisher else value

        task = LossTask(
            self.backbone,
            Optimisation(optimiser=optimiser, largest_norm=config.largest_norm),
            source=PlainImages(images),
            loss=loss,
            holdout_loss=holdout_loss,
        )
        schedule = Schedule(
            epochs=config.num_epochs,
            batch_size=config.batch_size,
            patience=config.patience,
            keeps=config.keep,
        )
        report = Trainer(task, schedule=schedule, context=context).run()
        for item in parameters.values():
            item.requires_grad_(False)
        num_adapted = sum(item.numel() for item in parameters.values())
        return {
            **report,
            "adaptation": config.adaptation,
            **({"fisher": config.fisher or "good images"} if fisher else {}),
            "num_adapted_parameters": num_adapted,
            "adapted_share": round(num_adapted / sum(item.numel() for item in network.parameters()), 4),
            "holdout_loss_before": before,
            "holdout_loss_after": holdout_loss(),
        }

    def _pooled(self, images: ImageSet, context: FitContext, stage: str) -> Tensor:
        """Pooled features of the last stage with the present weights, float32 (num_images, D), on the CPU."""
        (pooled,) = cache_features(
            lambda batch: (self.backbone(batch)[-1].mean((2, 3)),),
            images,
            device=context.device,
            progress=context.progress,
            stage=stage,
        )
        return pooled

    def _fisher(self, images: ImageSet, context: FitContext) -> Tensors:
        network = self.backbone.network
        if self.config.fisher:
            shapes = {name: network.get_parameter(name).shape for name in self.trained}
            read = read_fisher(Path(self.config.fisher), shapes)
            return moved(read, context.device)
        classifier = create_network(self.config.backbone, self.config.weights)
        # The backbone has no classifier; where its weights are random, the other network has drawn other ones.
        classifier.load_state_dict(network.state_dict(), strict=False)
        return diagonal_fisher(
            classifier.to(context.device), self.trained, images, seed=context.seed, progress=context.progress
        )

    def retrieval_score(self) -> RetrievalScore:
        """Return the sum of the smallest squared distances."""
        return partial(sum_of_squares, num_neighbours=self.config.num_neighbours)


def _check(config: PandaConfig) -> None:
    if config.fisher and config.adaptation != "ewc":
        raise UsageError(f"fisher is {config.fisher!r}, which ewc alone uses. Set adaptation to ewc, or leave it out.")
    if config.num_neighbours > config.num_retrieved:
        raise UsageError(
            f"num_neighbours is {config.num_neighbours}; expected at most num_retrieved = {config.num_retrieved}."
        )


def compactness(features: Tensor, centre: Tensor) -> Tensor:
    """Squared distance to the centre (D,), divided by D; the mean over features (N, D): a scalar."""
    return (features - centre).square().mean()


def elastic_penalty(parameters: Tensors, anchors: Tensors, fisher: Tensors, *, weight: float) -> Tensor:
    """Return ``weight / 2 · Σ F (θ − θ₀)²`` over all parameters: a scalar."""
    squares = [(fisher[name] * (item - anchors[name]).square()).sum() for name, item in parameters.items()]
    return 0.5 * weight * torch.stack(squares).sum()


def diagonal_fisher(
    classifier: nn.Module, names: tuple[str, ...], images: ImageSet, *, seed: int, progress: Progress
) -> Tensors:
    """Estimate the diagonal Fisher information of a classifier's parameters.

    It is the mean, over images, of the squared gradient of ``log p(y | image)``; each y is one draw from the
    classifier's own p (Kirkpatrick et al.: "Overcoming catastrophic forgetting in neural networks", PNAS 2017, arXiv
    1612.00796).

    Args:
        classifier: network from images float32 (N, 3, H, W) to logits (N, num_classes), in evaluation mode.
        names: names of its parameters.
        images: images to take the mean over.
        seed: seed of the draws.
        progress: called after every image.

    Returns:
        A tensor of the parameter's shape for each name, on the classifier's device.
    """
    classifier.requires_grad_(False)
    parameters = [classifier.get_parameter(name).requires_grad_() for name in names]
    totals = [torch.zeros_like(item) for item in parameters]
    generator = torch.Generator().manual_seed(seed)
    for index in range(len(images)):
        logits = classifier(moved(images.batch([index]), parameters[0].device))
        label = torch.multinomial(logits.detach().cpu().softmax(1), 1, generator=generator)[0]
        loss = F.cross_entropy(logits, moved(label, logits.device))
        for total, gradient in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient.square() / len(images)
        progress("Fisher information", index + 1, len(images))
    return dict(zip(names, (item.detach() for item in totals), strict=True))


def read_fisher(path: Path, shapes: dict[str, torch.Size]) -> Tensors:
    """Read a diagonal Fisher information.

    Args:
        path: .safetensors file.
        shapes: shape of each parameter by name.

    Raises:
        BadInputError: the file cannot be read, lacks a parameter, or holds values that no Fisher information has.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInputError(
            f"{path} cannot be read as a Fisher information ({error}). Give a .safetensors file with a tensor for each "
            "adapted parameter, or leave fisher out."
        ) from None
    wrong = [name for name, shape in shapes.items() if name not in state or state[name].shape != shape]
    if wrong:
        raise BadInputError(
            f"{path} has no tensor of the right shape for {len(wrong)} of {len(shapes)} adapted parameters, such as "
            f"{wrong[0]} {tuple(shapes[wrong[0]])}. Give the Fisher information of this backbone, named as in timm."
        )
    fisher = {name: state[name].float() for name in shapes}
    words = describe_not_finite(fisher)
    negative = [name for name, item in fisher.items() if (item < 0).any()]
    if words or negative:
        seen = words or f"{negative[0]} has negative values"
        raise BadInputError(f"{path} is no Fisher information: {seen}. Expected means of squares; estimate it again.")
    return fisher


def sum_of_squares(distances: Tensor, *, num_neighbours: int) -> Tensor:
    """Sum of the squares of the smallest of distances (N, K), which ascend: float32 (N,)."""
    return distances[:, :num_neighbours].square().sum(1)
