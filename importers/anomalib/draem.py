"""anomalib's DRAEM.

Its score is the largest value of the map, without the paper's mean over windows. Its convolutions have biases before
their batch normalisations, which subtract them again: they go into the means. Its second network is given the image
before what was restored, ours after it.
"""

import torch
from torch import Tensor

from .source import Converted, Source, Tensors

_RESTORING = "reconstructive_subnetwork"
_DECIDING = "discriminative_subnetwork"


def convert_draem(source: Source) -> Converted:
    """Convert a DRAEM model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    settings.require("enable_sspcab", False)
    settings.leave("dtd_dir", "anomaly_source_path", "sspcab_lambda", "beta")
    restoring, deciding = _restoring(tensors), _deciding(tensors)
    first = "discriminative.encoder.0.0.conv.weight"
    deciding[first] = torch.cat(deciding[first].split(3, 1)[::-1], 1)
    chosen = {
        "reconstructive_width": len(restoring["reconstructive.encoder.0.0.conv.weight"]),
        "discriminative_width": len(deciding[first]),
        "window_px": 1,
    }
    return Converted(model="Draem", detector="draem", settings=chosen, state=restoring | deciding)


def _restoring(tensors: Tensors) -> dict[str, Tensor]:
    """Stages of the encoder, and of the decoder, which begin with a growth, in ours with other modules between."""
    state: dict[str, Tensor] = {}
    for stage in range(5):
        state |= _double(tensors, f"{_RESTORING}.encoder.block{stage + 1}", f"reconstructive.encoder.{2 * stage}")
    for stage in range(4):
        ours = f"reconstructive.decoder.{2 * stage}"
        state |= _normed(tensors, f"{_RESTORING}.decoder.up{stage + 1}", 1, f"{ours}.block")
        state |= _double(tensors, f"{_RESTORING}.decoder.db{stage + 1}", f"reconstructive.decoder.{2 * stage + 1}")
    return state | _last(tensors, f"{_RESTORING}.decoder", "reconstructive")


def _deciding(tensors: Tensors) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for stage in range(6):
        state |= _double(tensors, f"{_DECIDING}.encoder_segment.block{stage + 1}", f"discriminative.encoder.{stage}")
    for stage, name in enumerate(("_b", "1", "2", "3", "4")):
        state |= _normed(tensors, f"{_DECIDING}.decoder_segment.up{name}", 1, f"discriminative.grow.{stage}.block")
        state |= _double(tensors, f"{_DECIDING}.decoder_segment.db{name}", f"discriminative.decoder.{stage}")
    return state | _last(tensors, f"{_DECIDING}.decoder_segment", "discriminative")


def _double(tensors: Tensors, theirs: str, ours: str) -> dict[str, Tensor]:
    """Two convolutions with their normalisations, a ReLU after each."""
    return _normed(tensors, theirs, 0, f"{ours}.0") | _normed(tensors, theirs, 3, f"{ours}.1")


def _normed(tensors: Tensors, theirs: str, place: int, ours: str) -> dict[str, Tensor]:
    """A convolution at a place of a sequence and the normalisation after it; the bias becomes part of the mean."""
    norm = tensors.take_under(f"{theirs}.{place + 1}")
    norm["running_mean"] = norm["running_mean"] - tensors.take(f"{theirs}.{place}.bias")
    state = {f"{ours}.norm.{name}": tensor for name, tensor in norm.items()}
    return state | {f"{ours}.conv.weight": tensors.take(f"{theirs}.{place}.weight")}


def _last(tensors: Tensors, theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.last.{leaf}": tensors.take(f"{theirs}.fin_out.0.{leaf}") for leaf in ("weight", "bias")}
