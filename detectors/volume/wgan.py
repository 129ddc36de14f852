"""The two trainings of f-AnoGAN: a Wasserstein GAN with gradient penalty, then an encoder into its latent space.

Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth: "f-AnoGAN: Fast unsupervised anomaly detection with generative
adversarial networks", Medical Image Analysis 2019, and the code published with it: penalty 10, five steps of the critic
to one of the generator, Adam with 1e-4 and (0, 0.9); the encoder by the "izi_f" loss with κ = 1 and RMSProp with 5e-5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ..training.devices import moved
from ..training.scans import Scans
from ..training.task import BatchSource, Optimisation, TrainingTask

GAN = "GAN"
_CRITIC, _GENERATOR = "critic", "generator"
_BETAS = (0.0, 0.9)
_HELD_OUT_SEED = 7


@final
@dataclass(frozen=True, kw_only=True)
class WganRule:
    """How the GAN is trained.

    Attributes:
        latent: length of the noise that an image is generated from.
        critic_steps: steps of the critic to one of the generator.
        penalty_weight: weight of the gradient penalty.
        learning_rate: learning rate of both.
    """

    latent: int
    critic_steps: int = 5
    penalty_weight: float = 10.0
    learning_rate: float = 1e-4


@final
class WganTask(TrainingTask[Scans]):
    """WGAN-GP (Gulrajani et al. 2017). A batch holds what all steps of the critic to one of the generator see.

    Args:
        critic: network to one value per image.
        generator: network from noise to images.
        source: batches of good scans, values float32 (B, C, side, …) first.
        held_out: batches of held-out ones, likewise.
        rule: how it is trained.
        device: device of the networks.
    """

    def __init__(
        self,
        critic: nn.Module,
        generator: nn.Module,
        *,
        source: BatchSource[Scans],
        held_out: list[Scans],
        rule: WganRule,
        device: torch.device,
    ) -> None:
        super().__init__(nn.ModuleDict({_CRITIC: critic, _GENERATOR: generator}), source, name=GAN)
        self._critic, self._generator = critic, generator
        self._held_out, self._rule, self._device = held_out, rule, device

    def optimisers(self) -> Mapping[str, Optimisation]:
        """Return Adam for critic and generator."""
        rate = self._rule.learning_rate
        return {
            name: Optimisation(optimiser=torch.optim.Adam(self.module.get_submodule(name).parameters(), rate, _BETAS))
            for name in (_CRITIC, _GENERATOR)
        }

    def step(self, batch: Scans) -> Iterator[tuple[str, Tensor]]:
        """Yield the critic's losses, each over its share of the batch, then the generator's."""
        images = moved(batch[0], self._device)
        parts = images.tensor_split(min(self._rule.critic_steps, len(images)))
        for part in parts:
            with torch.no_grad():
                made = self._generator(self._noise(len(part)))
            gap = self._critic(made).mean() - self._critic(part).mean()
            penalty = gradient_penalty(self._critic, part, made)
            yield _CRITIC, gap + self._rule.penalty_weight * penalty
        yield _GENERATOR, -self._critic(self._generator(self._noise(len(parts[0])))).mean()

    def validate(self) -> float:
        """Return the critic's distance between held-out and generated images, which tells little of their quality."""
        generator = torch.Generator().manual_seed(_HELD_OUT_SEED)
        total, count = 0.0, 0
        for batch, _ in self._held_out:
            noise = torch.randn(len(batch), self._rule.latent, generator=generator)
            real, made = (
                self._critic(moved(batch, self._device)),
                self._critic(self._generator(moved(noise, self._device))),
            )
            total, count = total + float((real - made).sum()), count + len(batch)
        return total / count

    def _noise(self, count: int) -> Tensor:
        # torch's own generator, whose state is saved with the training's.
        return torch.randn(count, self._rule.latent, device=self._device)


def gradient_penalty(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Mean over images of ``(|∇ critic| − 1)²`` at a random point between a real and a made one: a scalar."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = (share * real + (1.0 - share) * made).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # The square root has no slope at 0, where a critic that is flat begins.
    return ((slope.flatten(1).square().sum(1) + 1e-12).sqrt() - 1.0).square().mean()


@final
class EncoderLoss(nn.Module):
    """The encoder's loss "izi_f": images, and the critic's features of them, against those of their reconstruction.

    Critic and generator are frozen and keep their inference statistics; they are no part of the trained module.

    Args:
        encoder: network from images to noise; the only one that learns.
        generator: the GAN's generator.
        features: the critic without its last layer.
        feature_weight: κ, the weight of the features.
    """

    def __init__(self, encoder: nn.Module, generator: nn.Module, features: nn.Module, *, feature_weight: float) -> None:
        super().__init__()
        self.encoder = encoder
        self._frozen = (generator.eval().requires_grad_(False), features.eval().requires_grad_(False))
        self._feature_weight = feature_weight

    def forward(self, images: Tensor) -> Tensor:
        """float32 (B, C, side, …) → a scalar."""
        generator, features = self._frozen
        restored = generator(self.encoder(images))
        of_features = (features(images) - features(restored)).square().mean()
        loss: Tensor = (images - restored).square().mean() + self._feature_weight * of_features
        return loss
