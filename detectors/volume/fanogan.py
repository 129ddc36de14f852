"""f-AnoGAN over scans: its parameters and its two trainings, for depth images and voxels alike.

Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth: "f-AnoGAN", Medical Image Analysis 2019, as Bergmann et al. (VISAPP
2022, arXiv 2112.09045) took it to scans. Their appendix was not at hand: what no source settles is called a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..base import FitContext
from ..presets import Preset
from ..ranges import Count, NotNegative, Positive
from ..training.scans import Scans, ScanSet
from ..training.schedules import Schedule, WarmCosine
from ..training.task import Optimisation
from ..training.trainer import Trainer
from .networks import Shape, critic
from .restoring import RestoringConfig, held_out_batches, train_restoring
from .wgan import EncoderLoss, WganRule, WganTask

_ENCODER = "encoder"

#: For a preset that a single GPU trains in hours.
SMALL = Preset(
    source="Ours: plain convolutions of half the width, a fifth of the copies and a tenth of the steps.",
    settings={
        "residual": False,
        "width": 32,
        "copies": 4,
        "generator_steps": 2_000,
        "encoder_steps": 5_000,
        "encoder_optimiser": "adam",
        "encoder_learning_rate": 1e-4,
    },
)


@dataclass(frozen=True, kw_only=True)
class GanConfig(RestoringConfig):
    """Parameters of every f-AnoGAN of scans; they follow f-AnoGAN's published code, for images of 64 px.

    Attributes:
        latent: length of the noise, and of the encoder's vectors.
        residual: whether the networks have residual blocks, or plain convolutions.
        width: channels after the first convolution.
        batch_size: scans per step of the critic. A guess: they take 64 smaller images.
        generator_steps: steps of the generator. A guess.
        critic_steps: steps of the critic to one of the generator.
        penalty_weight: weight of the gradient penalty.
        learning_rate: learning rate of critic and generator.
        encoder_steps: steps of the encoder.
        encoder_optimiser: ``rmsprop``, or ``adam`` with a rate that warms up and falls by a cosine.
        encoder_learning_rate: learning rate of the encoder.
        feature_weight: weight κ of the critic's features in the encoder's loss.
    """

    latent: Count = 128
    residual: bool = True
    width: Count = 64
    generator_steps: Count = 20_000
    critic_steps: Count = 5
    penalty_weight: NotNegative = 10.0
    learning_rate: Positive = 1e-4
    encoder_steps: Count = 50_000
    encoder_optimiser: Literal["rmsprop", "adam"] = "rmsprop"
    encoder_learning_rate: Positive = 5e-5
    feature_weight: NotNegative = 1.0


def fit_gan(
    encoder: nn.Module,
    generator: nn.Module,
    shape: Shape,
    *,
    config: GanConfig,
    sets: tuple[ScanSet, ScanSet],
    context: FitContext,
) -> dict[str, Any]:
    """Train critic and generator, then the encoder; afterwards encoder and generator are on the CPU.

    Args:
        encoder: network from scans to the latent space.
        generator: network back.
        shape: shape of the networks.
        config: parameters.
        sets: scans to fit on, and held-out ones.
        context: seed, device, progress, run folder; both trainings share the time limit.

    Returns:
        The reports of both trainings, see ``Trainer.run``.
    """
    scans, holdout = sets
    context = context.share_of(2)
    judge = critic(shape).to(context.device)
    encoder.to(context.device)
    generator.to(context.device)
    source, held_out = config.drawn(scans, context.seed), held_out_batches(holdout, config.batch_size)
    rule = WganRule(
        latent=config.latent,
        critic_steps=config.critic_steps,
        penalty_weight=config.penalty_weight,
        learning_rate=config.learning_rate,
    )
    task = WganTask(judge, generator, source=source, held_out=held_out, rule=rule, device=context.device)
    seen_at_once = config.batch_size * config.critic_steps
    epochs = -(-config.generator_steps // -(-len(source) // seen_at_once))
    gan = Trainer(
        task, schedule=Schedule(epochs=epochs, batch_size=seen_at_once, patience=0, keeps="last"), context=context
    ).run()

    steps = -(-len(source) // config.batch_size)
    epochs = -(-config.encoder_steps // steps)
    learner = EncoderLoss(encoder, generator, judge.get_submodule("0"), feature_weight=config.feature_weight)

    def loss(batch: Scans) -> Tensor:
        value: Tensor = learner(batch[0])
        return value

    of_encoder = train_restoring(
        learner,
        _optimisation(learner, config, num_steps=epochs * steps),
        loss=loss,
        epochs=epochs,
        config=config,
        source=source,
        held_out=held_out,
        context=context,
        name=_ENCODER,
    )
    encoder.cpu()
    generator.cpu()
    return {"gan": gan, _ENCODER: of_encoder}


def _optimisation(learner: nn.Module, config: GanConfig, *, num_steps: int) -> Optimisation:
    if config.encoder_optimiser == "rmsprop":
        return Optimisation(optimiser=torch.optim.RMSprop(learner.parameters(), config.encoder_learning_rate))
    optimiser = torch.optim.Adam(learner.parameters(), config.encoder_learning_rate)
    return Optimisation(optimiser=optimiser, scheduler=WarmCosine(optimiser, num_steps=num_steps))
