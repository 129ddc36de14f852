"""Each example does what its docstring says, as a process of its own."""

import ast
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lineproof.data.sample.write import write_sample
from lineproof.data.sample.write_3d import write_sample_3d
from lineproof.runtime.engine import availability

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def _needs_an_engine():
    if not availability("ort-cpu").is_available:
        pytest.skip("onnxruntime is not installed")


def start(name, *words, folder):
    command = [sys.executable, "-u", str(EXAMPLES / f"{name}.py"), *map(str, words)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(name, *words, folder, status=0):
    """What an example prints; its exit status must be ``status``."""
    process = start(name, *words, folder=folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    assert "Traceback" not in err
    return out


def test_embed(tiny_bundle, tmp_path):
    frames = tiny_bundle.golden().frames
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    names = [f"{index}.png" for index in range(8)]
    out = run("embed", tiny_bundle.path, *names, folder=tmp_path, status=1).splitlines()
    assert [line.split()[0] for line in out] == ["OK"] * 4 + ["NG"] * 4
    assert [line.split()[-1] for line in out] == names
    run("embed", tiny_bundle.path, "0.png", folder=tmp_path)


def test_camera_loop(tiny_bundle, tmp_path):
    *lines, last = run("camera_loop", tiny_bundle.path, "40", folder=tmp_path).splitlines()
    assert len(lines) == 40
    assert sorted(int(line.split()[0]) for line in lines) == list(range(40))
    answers = {int(line.split()[0]): line.split()[1] for line in lines}
    # Golden frames 0 to 3 are good, 4 to 7 are not, and each tenth is spoiled; a slow machine may be late for some.
    wanted = {number: "ERR" if number % 10 == 9 else ("OK", "NG")[number % 8 > 3] for number in range(40)}
    assert all(answer in ("ERR", wanted[number]) for number, answer in answers.items())
    num_ok, num_ng, num_err = map(int, re.fullmatch(r"judged 40 frames: (\d+) OK, (\d+) NG, (\d+) ERR", last).groups())
    assert num_ok > 0
    assert num_ng > 0
    assert num_err >= 4


def test_camera_loop_is_stopped_by_ctrl_c(tiny_bundle, tmp_path):
    process = start("camera_loop", tiny_bundle.path, "100000", folder=tmp_path)
    first = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    *lines, last = "".join([*first, out]).splitlines()
    numbers = [int(line.split()[0]) for line in lines]
    assert sorted(numbers) == list(range(len(numbers))), "every frame that was taken has one answer"
    assert last.startswith(f"stopped by Ctrl-C after {len(lines)} frames: ")


@pytest.mark.slow
def test_custom_detector(tmp_path):
    for package in ("timm", "onnxscript"):
        pytest.importorskip(package)
    out = run("custom_detector", tmp_path, folder=tmp_path)
    frames, flips = re.fullmatch(r"(\d+) frames on ort-cpu: parity passed, (\d+) verdicts changed\n", out).groups()
    assert int(frames) > 12
    assert int(flips) == 0


def test_custom_engine(tiny_bundle, tmp_path):
    pytest.importorskip("onnx")
    state, parity, verdict = run("custom_engine", tiny_bundle.path, folder=tmp_path).splitlines()
    assert re.fullmatch(r"onnx-reference: can run here \(onnx [\d.]+\)", state)
    assert parity == "parity passed on 8 golden frames"
    assert verdict.startswith("the first golden frame is OK: score 0.")


@pytest.mark.slow
def test_reproduce_tables(tmp_path):
    """Two seeds of one category, done once; a detector that cannot train there fails alone."""
    for package in ("timm", "onnxscript"):
        pytest.importorskip(package)
    write_sample(tmp_path / "set", num_train=10, num_test_good=3, num_test_defect=6, size_px=96)
    quick = ("--preset", "quick", "--set", "resize_px=48", "--set", "crop_px=48")
    words = (
        "reproduce_tables",
        "set",
        "work",
        "--category",
        "weave",
        "--seed",
        "0",
        "1",
        *quick,
        "--row",
        "padim",
    )
    first = run(*words, folder=tmp_path)
    kept = {path.name: path.read_bytes() for path in next((tmp_path / "work").glob("quick-*/cells")).iterdir()}
    assert sorted(kept) == ["padim-weave-0.json", "padim-weave-1.json"]
    image, pixel = ([json.loads(kept[name])[key] for name in sorted(kept)] for key in ("image_auroc", "pixel_auroc"))
    assert f"padim weave seed 1: image_auroc {image[1]:.4f}, mean {sum(image) / 2:.4f} ± " in first
    assert f"padim weave seed 1: pixel_auroc {pixel[1]:.4f}, mean {sum(pixel) / 2:.4f} ± " in first
    assert first.count("padim (quick with --set, seeds: 2), measured") >= 2
    assert "weave" in first.split("Table 1", 1)[1], "a category of another set has no column, which is said"
    (bundles,) = (tmp_path / "work").glob("quick-*/bundles")
    shutil.rmtree(bundles)
    again = run(*words, "draem", folder=tmp_path, status=1)
    assert again.startswith(first.split("\n\n")[0])
    assert not bundles.exists(), "nothing is done twice"
    assert again.count("failed. draem: crop_px is 48x48") == 2


@pytest.mark.slow
def test_reproduce_tables_of_scans(tmp_path):
    """A detector of scans has a row without colours and one with them, each below the published one of its name."""
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package)
    write_sample_3d(tmp_path / "set", num_train=6, num_validation=3, num_test_good=3, num_test_defect=5, size_px=64)
    (tmp_path / "set" / "bracket").rename(tmp_path / "set" / "bagel")
    words = ("--table", "5", "6", "--category", "bagel", "--preset", "quick", "--set", "copies=1")
    out = run("reproduce_tables", "set", "work", *words, "--row", "depth_vm", "depth_vm_rgb", folder=tmp_path)
    metrics = ("aupro", "image_auroc", "pixel_auroc")
    assert [line.split()[4] for line in out.splitlines()[:6]] == [*metrics, *metrics]
    for number, metric in (("5", "image_auroc"), ("6", "aupro")):
        lines = out.split(f"Table {number}: ")[1].split("\n\n")[0].splitlines()
        for row, published in (("depth_vm", "3D depth VM"), ("depth_vm_rgb", "3D+RGB depth VM")):
            kept = json.loads(next((tmp_path / "work").glob(f"quick-*/cells/{row}-bagel-0.json")).read_text())
            assert kept["asked"]["settings"]["rgb"] == (row == "depth_vm_rgb")
            (place,) = (i for i, line in enumerate(lines) if line.startswith(f"{published}, published "))
            assert (
                lines[place + 1].split() == f"{row} (quick with --set, seeds: 1), measured {kept[metric]:.3f} -".split()
            )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_short_and_says_what_to_install_and_what_it_prints(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    docstring = ast.get_docstring(ast.parse(text))
    assert all(f"\n{word}:" in docstring for word in ("Install", "Run", "Prints"))
    assert f"def test_{path.stem}(" in Path(__file__).read_text(encoding="utf-8"), "no test runs this example"
