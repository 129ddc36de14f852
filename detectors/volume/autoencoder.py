"""What the autoencoders of scans share: parameters, and what is restored, values or deviations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ..base import FitContext
from ..ranges import Count, Positive
from ..training.devices import moved
from ..training.scans import Scans, ScanSet
from ..training.task import Optimisation
from .copies import CopySource
from .deviations import Deviations
from .restoring import Carried, Restoring, RestoringConfig, held_out_batches, restore, train_restoring


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(RestoringConfig):
    """Parameters of the autoencoders of scans.

    Attributes:
        epochs: passes over the scans and their copies. A guess.
        learning_rate: Adam's learning rate. A guess.
        restores: what is restored. ``values``: depths and colours, or cells, as they are; the paper's. ``deviations``:
            what the variation model makes of them, its mean subtracted, whitened by its covariance; and what is not
            restored counts in units of what is left of the training scans. Our guess at what finds more.
        smallest_left: with ``deviations``, root mean square of what is left, at least, in deviations. Our guess.
    """

    epochs: Count = 50
    learning_rate: Positive = 2e-4
    restores: Literal["values", "deviations"] = "values"
    smallest_left: Positive = 0.3


class Autoencoder(Restoring):
    """The part of a detector that is an autoencoder.

    Attributes:
        deviations: what turns values into deviations, or None where values are restored.
    """

    deviations: Deviations | None

    def taken(self, scans: Scans) -> Scans:
        """See ``Restoring``."""
        return scans if self.deviations is None else self.deviations(scans)

    def taken_lowered(self) -> nn.Module:
        """See ``Restoring``."""
        return nn.Identity() if self.deviations is None else self.deviations.lowered()

    @property
    def weights(self) -> Tensor | None:
        """By what the differences are multiplied, see ``Deviations``; None for nothing."""
        return None if self.deviations is None else self.deviations.weights

    def learn(  # noqa: PLR0913 (what a training needs, by name)
        self,
        source: CopySource,
        holdout: ScanSet,
        *,
        config: AutoencoderConfig,
        smallest: Sequence[float],
        loss: Callable[[Carried], Tensor],
        optimisation: Callable[[nn.Module], Optimisation],
        context: FitContext,
    ) -> dict[str, Any]:
        """Learn deviations, where they are restored, train both networks, and see what is left of the training scans.

        Args:
            source: scans and their copies.
            holdout: held-out scans.
            config: parameters.
            smallest: smallest deviation of each channel, see ``Deviations.learn``.
            loss: of what ``restore`` gives.
            optimisation: returns the optimiser of a network.
            context: seed, device, progress, run folder.

        Returns:
            The report of the training, see ``Trainer.run``, and ``restored_share`` of the deviations.
        """
        size, parts = config.batch_size, [self.encoder, self.decoder]
        if self.deviations is not None:
            self.deviations.learn(source.once(size), smallest)
            parts.append(self.deviations)
        for part in parts:
            part.to(context.device)
        network = nn.ModuleList([self.encoder, self.decoder])
        report = train_restoring(
            network,
            optimisation(network),
            loss=lambda batch: loss(restore(self.encoder, self.decoder, self.taken(batch))),
            epochs=config.epochs,
            config=config,
            source=source,
            held_out=held_out_batches(holdout, size),
            context=context,
        )
        if self.deviations is not None:
            network.eval()
            batches = (moved(batch, context.device) for batch in source.once(size))
            share = self.deviations.weigh(
                batches, lambda values: self.decoder(self.encoder(values)), smallest=config.smallest_left
            )
            report = {**report, "restored_share": round(share, 4)}
        for part in parts:
            part.cpu()
        return report
