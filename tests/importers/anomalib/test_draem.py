"""DRAEM from anomalib's tensors equals its formulas, written down here in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from lineproof.core.errors import BadInputError  # noqa: E402

WIDTHS = (4, 3)
SETTINGS = {"dtd_dir": "./datasets/dtd", "enable_sspcab": False, "sspcab_lambda": 0.1, "beta": (0.1, 1.0)}
RESTORING, DECIDING = "reconstructive_subnetwork", "discriminative_subnetwork"


def draw(drawn):
    """The tensors of anomalib's model, by their shapes, at other widths."""
    wide, narrow = WIDTHS

    def normed(name, place, channels_out, channels_in):
        drawn.layer(f"{name}.{place}", channels_out, channels_in, 3, 3)
        drawn.norm(f"{name}.{place + 1}", channels_out)

    def double(name, channels_in, between, channels_out):
        normed(name, 0, between, channels_in)
        normed(name, 3, channels_out, between)

    encoder = [3, *(factor * wide for factor in (1, 2, 4, 8, 8))]
    for number in range(1, 6):
        double(f"{RESTORING}.encoder.block{number}", encoder[number - 1], encoder[number], encoder[number])
    for number, (here, above) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1)), start=1):
        normed(f"{RESTORING}.decoder.up{number}", 1, here * wide, here * wide)
        double(f"{RESTORING}.decoder.db{number}", here * wide, here * wide, above * wide)
    drawn.layer(f"{RESTORING}.decoder.fin_out.0", 3, wide, 3, 3)
    encoder = [6, *(factor * narrow for factor in (1, 2, 4, 8, 8, 8))]
    for number in range(1, 7):
        double(f"{DECIDING}.encoder_segment.block{number}", encoder[number - 1], encoder[number], encoder[number])
    steps = (("_b", 8, 8, 8), ("1", 8, 4, 8), ("2", 4, 2, 4), ("3", 2, 1, 2), ("4", 1, 1, 1))
    for name, here, above, skip in steps:
        normed(f"{DECIDING}.decoder_segment.up{name}", 1, above * narrow, here * narrow)
        both = (above + skip) * narrow
        double(f"{DECIDING}.decoder_segment.db{name}", both, above * narrow, above * narrow)
    drawn.layer(f"{DECIDING}.decoder_segment.fin_out.0", 2, narrow, 3, 3)
    return drawn.state


def reference(state, images):
    """The probability of an anomaly, (N, H, W)."""

    def convolved(x, name):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def normed(x, name, place):
        norm = f"{name}.{place + 1}"
        moments = (state[f"{norm}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(convolved(x, f"{name}.{place}"), *moments).relu()

    def double(x, name):
        return normed(normed(x, name, 0), name, 3)

    def doubled(x, name):
        return normed(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), name, 1)

    x = images
    for number in range(1, 6):
        x = double(F.max_pool2d(x, 2) if number > 1 else x, f"{RESTORING}.encoder.block{number}")
    for number in range(1, 5):
        x = double(doubled(x, f"{RESTORING}.decoder.up{number}"), f"{RESTORING}.decoder.db{number}")
    x = torch.cat([images, convolved(x, f"{RESTORING}.decoder.fin_out.0")], 1)
    skips = []
    for number in range(1, 7):
        x = double(F.max_pool2d(x, 2) if number > 1 else x, f"{DECIDING}.encoder_segment.block{number}")
        skips.append(x)
    for name, skip in zip(("_b", "1", "2", "3", "4"), skips[-2::-1], strict=True):
        grown = doubled(x, f"{DECIDING}.decoder_segment.up{name}")
        x = double(torch.cat([grown, skip], 1), f"{DECIDING}.decoder_segment.db{name}")
    return convolved(x, f"{DECIDING}.decoder_segment.fin_out.0").softmax(1)[:, 1].numpy()


@torch.no_grad()
def test_it_is_anomalibs_function(imported, drawn):
    detector = imported(draw(drawn), SETTINGS, size=(64, 96))
    assert (detector.config.reconstructive_width, detector.config.discriminative_width) == WIDTHS
    images = torch.rand(2, 3, 64, 96, generator=drawn.generator)
    want = reference(drawn.double(), images.double())
    assert np.ptp(want) > 0.05
    for score, anomaly_map in (detector(images), detector.lower().eval()(images)):
        np.testing.assert_allclose(anomaly_map.numpy(), want, rtol=0, atol=1e-5 * np.ptp(want))
        np.testing.assert_allclose(score.numpy(), want.max((1, 2)), rtol=1e-5)


def test_a_self_supervised_block_is_refused(imported, drawn):
    with pytest.raises(BadInputError, match="enable_sspcab = True; expected False"):
        imported(draw(drawn), SETTINGS | {"enable_sspcab": True})


def test_settings_of_the_first_releases_are_known(imported, drawn):
    settings = {"anomaly_source_path": None, "enable_sspcab": False, "sspcab_lambda": 0.1, "beta": 0.5}
    assert imported(draw(drawn), settings).config.window_px == 1


def test_a_missing_bias_is_named(imported, drawn):
    state = draw(drawn)
    del state[f"{RESTORING}.decoder.up3.1.bias"]
    with pytest.raises(BadInputError, match=rf"no tensor model\.{RESTORING}\.decoder\.up3\.1\.bias"):
        imported(state, SETTINGS)
