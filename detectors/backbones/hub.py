"""Hubs of pretrained weights: cached files need no network, and a hub that does not answer is given up."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch

#: The whole probe, from looking up the name to the answer; each step of it may take as long as the client's timeout.
PROBE_S = 4.5
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
#: Answers after which the hub's client would try again and again: overloaded, or nothing behind the gateway.
_RETRIED = (408, 429)


def reach_timm_weights(backbone: str) -> dict[str, Any]:
    """Find the pretrained weights of a timm network in the cache, or ask once whether its hub answers.

    Args:
        backbone: name of the network in timm.

    Returns:
        Entries that override timm's configuration of the network: the cached file, which is then loaded without a
        request to the hub; or none.

    Raises:
        OSError: the weights are not cached, and the hub gives no answer within PROBE_S or answers that it cannot serve.
    """
    config = _config(backbone)
    if config is None:
        return {}
    if not config.hf_hub_id:
        reach_url(config.url)
        return {}
    if cached := cached_timm_weights(backbone):
        # Without custom_load: that describes the file behind ``url``, not the hub's.
        return {"file": str(cached), "custom_load": False}
    from huggingface_hub import hf_hub_url

    repository, names, revision = _place(config)
    url = hf_hub_url(repository, names[0], revision=revision)
    _probe(url, lambda: _ask_hub(url))
    return {}


def cached_timm_weights(backbone: str) -> Path | None:
    """Return the file of a timm network's pretrained weights in the cache; None where it is not there.

    Args:
        backbone: name of the network in timm.
    """
    config = _config(backbone)
    if config is None:
        return None
    if not config.hf_hub_id:
        return cached_url(config.url)
    from huggingface_hub import try_to_load_from_cache

    repository, names, revision = _place(config)
    cached = (try_to_load_from_cache(repository, name, revision=revision) for name in names)
    return next((Path(path) for path in cached if isinstance(path, str)), None)


def _config(backbone: str) -> Any:
    """Return timm's configuration of a network with pretrained weights, or None."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(backbone)
    return config if config and (config.hf_hub_id or config.url) else None


def _place(config: Any) -> tuple[str, tuple[str, ...], str | None]:
    """Return repository, names of files by preference, and revision of weights on the hub."""
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES, revision or None


def cached_url(url: str) -> Path | None:
    """Return the file that torch's hub fetched from an address; None where it is not in the cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return path if path.is_file() else None


def reach_url(url: str) -> None:
    """Ask once whether a file that torch's hub would fetch can be had, unless it lies in the cache.

    Args:
        url: address of the file.

    Raises:
        OSError: the file is not cached, and its host gives no answer within PROBE_S or answers that it cannot serve.
    """
    if cached_url(url) is None:
        _probe(url, lambda: _ask_url(url))


def _ask_hub(url: str) -> int:
    # The hub's own client knows proxies, certificates and the offline mode.
    from huggingface_hub import get_session

    return int(get_session().head(url, timeout=PROBE_S).status_code)


def _ask_url(url: str) -> int:
    # torch.hub fetches with urllib, too.
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PROBE_S) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as error:
        return error.code


def _probe(url: str, ask: Callable[[], int]) -> None:
    """Ask in a thread that nobody waits for: a resolver without a network may hang for longer than any timeout."""
    failures: list[BaseException] = []
    host = urlsplit(url).netloc
    with ThreadPool(1) as pool:
        answer = pool.apply_async(ask, error_callback=failures.append)
        answer.wait(PROBE_S)
        if not answer.ready():
            raise TimeoutError(f"no answer from {host} within {PROBE_S:g} s")
        if failures:
            raise ConnectionError(f"{host}: {type(failures[0]).__name__}: {failures[0]}")
        status = answer.get()
    if status >= 500 or status in _RETRIED:
        raise ConnectionError(f"{host} answered {status}")
