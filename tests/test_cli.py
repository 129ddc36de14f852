"""The command line: help, exit statuses, one JSON object, short forms."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lineproof import cli
from lineproof.bundle.store import now, open_bundle
from lineproof.core.errors import ParityError
from lineproof.runtime.engine import availability

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "train", "import anomalib", "import onnx", "export", "calibrate", "set-threshold", "verify", "profile", "run",
    "evaluate", "compare", "badcases", "inspect", "diagnose anomalib", "doctor", "models", "sample", "demo",
)  # fmt: skip
PAIR = {"reference", "engine"}
PERCENTILES = {"p50", "p90", "p95", "p99", "p999", "max"}
VERIFY_KEYS = {
    "passed", "engine", "precision", "num_frames", "verdict_flips", "score_max_abs_error", "map_max_abs_error",
    "image_auroc", "pixel_auroc", "aupro",
}  # fmt: skip
PROFILE_KEYS = {
    "engine", "precision", "batch", "latency_ms", "fps", "cold_start_ms", "peak_host_mb", "extra_parameters_m",
    "constants_mb", "environment",
}  # fmt: skip


def needs(engine):
    state = availability(engine)
    if not state.is_available:
        pytest.skip(f"{engine} cannot run here. Found: {state.found}. To fix: {state.fix}.")


@pytest.fixture
def lineproof(monkeypatch, capsys, tmp_path):
    """Run one command in an empty folder: (exit status, stdout, stderr)."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lineproof", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def images(tmp_path):
    """A dark (good) and a bright (defective) image of the tiny bundle's size."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, level in (("good", 20), ("bad", 230)):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(folder / f"{name}.png")
    return folder


def only_json(text):
    """The one JSON object that stdout must be, with no number that JSON does not know."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def test_commands_are_these():
    names = [item.name for item in cli.app.registered_commands]
    for group in cli.app.registered_groups:
        names += [f"{group.name} {item.name}" for item in group.typer_instance.registered_commands]
    assert sorted(names) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_has_help(command):
    answer = CliRunner().invoke(cli.app, [*command.split(), "--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    import typer

    made = typer.main.get_command(cli.app)
    for word in command.split():
        made = made.commands[word]
    assert made.help
    for parameter in made.params:
        if parameter.name != "help":
            assert parameter.help, f"{command} {parameter.name} says nothing"
            assert max(parameter.opts, key=len) in answer.stdout
    assert {"--json", "--quiet", "--verbose"} <= {option for item in made.params for option in item.opts}


def test_help_names_the_exit_statuses():
    answer = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    for words in (
        "0 done",
        "1 error",
        "2 usage",
        "3 environment missing",
        "4 parity failed",
        "5 deadline missed",
        "130 stopped by Ctrl-C",
    ):
        assert words in " ".join(answer.stdout.split())


def test_without_a_command_it_shows_the_help(lineproof):
    status, out, err = lineproof()
    assert status == 2
    assert "Usage" in out + err
    assert "export" in out + err


def test_help_imports_next_to_nothing():
    code = (
        "import sys\nsys.argv = ['lineproof', '--help']\nfrom lineproof.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'rich', 'PIL', 'onnxruntime') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [["--help"], ["export", "--help"]])
def test_it_runs_as_a_script_from_the_root(words):
    answer = subprocess.run([sys.executable, "cli.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "Usage" in answer.stdout
    assert answer.stderr == ""


def test_a_threshold_is_set_said_and_shown(lineproof, tiny_bundle):
    needs("ort-cpu")
    assert lineproof("verify", tiny_bundle.path, "--engine", "ort-cpu")[0] == 0
    status, out, _ = lineproof("set-threshold", tiny_bundle.path, "0.5", "--reason", "fewer rejects", "--who", "Ann")
    assert (status, out.startswith("Threshold of every engine without one of its own: 0.5 (before: ")) == (0, True)
    _, out, _ = lineproof("inspect", tiny_bundle.path)
    assert "Parity: ort-cpu outdated." in out
    assert "set-threshold by Ann: threshold 0.2" in out
    assert "-> 0.5 (fewer rejects)" in out
    status, out, err = lineproof("set-threshold", tiny_bundle.path, "nan", "--reason", "x")
    assert (status, out) == (2, "")
    assert "expected a finite number" in err
    status, _, err = lineproof("set-threshold", tiny_bundle.path, "0.5", "--reason", "x", "--engine", "ort-cup")
    assert status == 2
    assert "Did you mean 'ort-cpu'?" in err
    status, _, err = lineproof("set-threshold", tiny_bundle.path, "0.5", "--reason", "x", "--engine", "null")
    assert status == 2
    assert "Engine null computes nothing and answers zeros: it cannot have a threshold" in err


def test_run_says_that_nothing_is_proved_and_refuses_where_a_proof_is_required(lineproof, tiny_bundle, images):
    needs("ort-cpu")
    status, out, err = lineproof("run", tiny_bundle.path, images / "good.png", "--engine", "ort-cpu")
    assert (status, json.loads(out)["verdict"]) == (0, "OK")
    assert "warning: Engine ort-cpu is not proved: it was never verified on this bundle." in err
    status, out, err = lineproof("run", tiny_bundle.path, images, "--engine", "ort-cpu", "--require-proof")
    assert (status, out) == (4, "")
    assert "A proof was required." in err


def test_status_0_verify(lineproof, tiny_bundle):
    needs("ort-cpu")
    status, out, err = lineproof("verify", tiny_bundle.path, "--engine", "ort-cpu")
    assert status == 0
    assert out.startswith("Parity passed: tiny on ort-cpu (fp32)")
    assert " (on the scores of torch)." in out.splitlines()[1]
    assert "error" not in err
    assert open_bundle(tiny_bundle.path).manifest.parity_of("ort-cpu") == "passed"


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "absent.bundle"],
        ["inspect"],
        ["export", "fastflow"],
        ["train", "fastflow", "--data", "absent"],
        ["run", "absent.bundle", "."],
    ],
)
def test_status_1_what_is_not_there(lineproof, words):
    if words[0] in ("export", "train"):
        pytest.importorskip("onnxscript", reason="without the training packages it is status 3")
    status, out, err = lineproof(*words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_status_1_a_image_without_a_verdict(lineproof, tiny_bundle, images):
    needs("ort-cpu")
    (images / "cut.png").write_bytes((images / "bad.png").read_bytes()[:40])
    status, out, err = lineproof("run", tiny_bundle.path, images, "--engine", "ort-cpu", "--quiet")
    assert status == 1
    assert [json.loads(line)["verdict"] for line in out.splitlines()] == ["NG", "ERR", "OK"]
    assert "1 of 3 files gave no verdict" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exprot"], "No such command"),
        (["verify", "--frobnicate"], "No such option"),
        (["verify", "TINY", "--engine", "trt11"], "There is no engine 'trt11'. Known: "),
        (["verify", "TINY", "--precision", "fp16"], "is fp32, not fp16"),
        (["verify", "TINY", "--engine", "ort-cpu", "--batch", "9"], "9"),
        (["profile", "TINY", "--batch", "8:1"], "expected rising numbers"),
        (["export", "fastflw"], "no detector, run folder or bundle"),
        (["export", "TINY", "--engine", "tensorrt"], "engine (--engine) is 'tensorrt'; export knows onnx"),
        (["export", "TINY", "--precision", "fp16"], "is a bundle already (fp32)"),
        (["export", "fastflow", "--frame", "1024"], "expected HEIGHTxWIDTH"),
        (["calibrate", "TINY", "--data", ".", "--max-false-reject", "5 percent"], "expected a share"),
        (["models", "fastflw"], "Did you mean 'fastflow'?"),
        (["train", "fastflw", "--data", "."], "Did you mean 'fastflow'?"),
        (["train", "fastflow", "--data", ".", "--set", "stepps=3"], "has no parameter stepps. It has: "),
        (
            ["train", "fastflow", "--data", ".", "--preset", "papr"],
            "no preset 'papr'. It has: paper, table4, quick.",
        ),
        (["run", "TINY", "IMAGES", "--threshold", "nan"], "expected a finite number"),
        (["run", "TINY", "IMAGES", "--append"], "(--append) was given without out (--out)"),
        (["run", "TINY", "IMAGES", "--out", "o", "--skip-judged"], "(--skip-judged) was given without append"),
    ],
)
def test_status_2_usage(lineproof, tiny_bundle, images, words, said):
    if words[0] in ("train", "export"):
        pytest.importorskip("torch")
    places = {"TINY": tiny_bundle.path, "IMAGES": images}
    status, out, err = lineproof(*(places.get(word, word) for word in words))
    assert status == 2, err
    assert out == ""
    assert said in " ".join(err.split())


def test_status_3_an_engine_that_is_not_here(lineproof, tiny_bundle):
    if availability("trt").is_available:
        pytest.skip("TensorRT and a GPU are here")
    status, out, err = lineproof("verify", tiny_bundle.path, "--engine", "trt")
    assert (status, out) == (3, "")
    for words in ("Engine trt cannot run here. Looked for: ", "Found: ", "To fix: ", "Engines that work here: "):
        assert words in err


def test_status_3_a_package_that_is_not_here():
    code = (
        "import sys\nsys.modules['torch'] = None\nsys.argv = ['lineproof', 'train', 'fastflow', '--data', '.']\n"
        "from lineproof.cli import main\nmain()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 3
    assert "The package torch is missing." in answer.stderr
    assert "Install it with what goes with it: pip install 'torch>=2.9' 'torchvision>=0.24'" in answer.stderr


def test_status_4_the_null_engine_never_passes(lineproof, tiny_bundle, images):
    status, out, err = lineproof("verify", tiny_bundle.path, "--engine", "null", "--json")
    assert status == 4
    assert only_json(out)["passed"] is False
    assert "null does not give the reference's answers" in err
    assert open_bundle(tiny_bundle.path).manifest.parity == {}
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "failed", time=now()))
    status, out, err = lineproof("run", tiny_bundle.path, images, "--engine", "ort-cpu")
    assert (status, out) == (4, "")
    assert "failed its last `lineproof verify --engine ort-cpu`" in err


def test_status_5_a_deadline_is_missed(lineproof, tiny_bundle):
    needs("ort-cpu")
    status, out, err = lineproof(
        "profile", tiny_bundle.path, "--engine", "ort-cpu", "--runs", 3, "--warmup", 1, "--cold-starts", 0,
        "--deadline-ms", "0.000001", "--json",
    )  # fmt: skip
    assert status == 5
    assert only_json(out)["missed_deadline"] is True
    assert "3 of 3 calls took longer than 1e-06 ms" in err


def test_verify_prints_one_object(lineproof, tiny_bundle):
    needs("ort-cpu")
    status, out, _ = lineproof("verify", tiny_bundle.path, "--engine", "ort-cpu", "--json", "--batch", "4")
    shown = only_json(out)
    assert status == 0
    assert set(shown) >= VERIFY_KEYS
    assert shown["passed"] is True
    assert (shown["engine"], shown["precision"], shown["num_frames"], shown["verdict_flips"]) == (
        "ort-cpu", "fp32", 8, [],
    )  # fmt: skip
    assert set(shown["image_auroc"]) == set(shown["pixel_auroc"]) == set(shown["aupro"]) == PAIR
    assert shown["score_max_abs_error"] < 1e-6


def test_profile_prints_one_object(lineproof, tiny_bundle):
    needs("ort-cpu")
    status, out, _ = lineproof(
        "profile", tiny_bundle.path, "--engine", "ort-cpu", "--runs", 5, "--warmup", 1, "--batch", "1:4", "--json",
        "--cold-starts", 1,
    )  # fmt: skip
    shown = only_json(out)
    assert status == 0
    assert set(shown) >= PROFILE_KEYS
    assert set(shown["latency_ms"]) >= PERCENTILES
    assert shown["batch"] == 1
    assert [item["batch"] for item in shown["batches"]] == [1, 4]
    assert shown["fps"] > 0
    assert shown["cold_start_ms"] > shown["latency_ms"]["p50"]
    assert shown["peak_host_mb"] > 1
    assert {"cpu", "os", "packages"} <= set(shown["environment"])


def test_a_profile_is_printed_before_it_is_filed(lineproof, tiny_bundle, monkeypatch, tmp_path):
    """A bundle that cannot be written loses no result; --record names a folder that takes it."""
    needs("ort-cpu")
    from lineproof.bundle import atomic

    real = os.replace

    def refuse(source, target):
        if Path(target).parent == tiny_bundle.path:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(source))
        real(source, target)

    monkeypatch.setattr(atomic.os, "replace", refuse)
    words = (
        "profile", tiny_bundle.path, "--engine", "ort-cpu", "--engine", "null", "--runs", 3, "--warmup", 1,
        "--cold-starts", 0, "--json", "--quiet",
    )  # fmt: skip
    status, out, err = lineproof(*words)
    assert status == 0
    assert [item["engine"] for item in only_json(out)["reports"]] == ["ort-cpu", "null"]
    assert err == (
        f"warning: The report was not kept. {tiny_bundle.path / 'profile.json'}: read-only file system. "
        "Name a folder that can be written. `--record DIR` names a folder that takes it.\n"
    )
    status, out, err = lineproof(*words, "--record", tmp_path / "kept")
    assert (status, err) == (0, "")
    assert [item["engine"] for item in json.loads((tmp_path / "kept" / "profile.json").read_text())] == [
        "ort-cpu", "null",
    ]  # fmt: skip
    (tmp_path / "file").write_text("x")
    status, out, err = lineproof(*words, "--record", tmp_path / "file")
    assert status == only_json(out)["status"] == 1
    assert "cannot take a report" in err


def test_several_engines_side_by_side(lineproof, tiny_bundle):
    needs("ort-cpu")
    status, out, _ = lineproof(
        "profile", tiny_bundle.path, "--engine", "ort-cpu", "--engine", "null", "--runs", 3, "--warmup", 1,
        "--cold-starts", 0, "--json",
    )  # fmt: skip
    shown = only_json(out)
    assert status == 0
    assert [item["engine"] for item in shown["reports"]] == ["ort-cpu", "null"]
    assert shown["ratios"][0]["baseline"] == "ort-cpu"


@pytest.mark.parametrize("words", [["inspect", "TINY"], ["doctor"], ["models"], ["sample", "PLACE"]])
def test_other_commands_print_one_object(lineproof, tiny_bundle, tmp_path, monkeypatch, words):
    if words[0] == "sample":
        written = {"num_train": 2, "num_test_good": 1, "num_test_defect": 6, "size_px": 64}
        from lineproof.data.sample import write as sample

        real = sample.write_sample
        monkeypatch.setattr(sample, "write_sample", lambda place, **options: real(place, **options, **written))
    places = {"TINY": tiny_bundle.path, "PLACE": tmp_path / "made"}
    status, out, err = lineproof(*(places.get(word, word) for word in words), "--json", "--quiet")
    assert status == 0, err
    assert only_json(out)
    assert err == ""


def test_run_prints_verdicts_and_writes_overlays(lineproof, tiny_bundle, images, tmp_path):
    needs("ort-cpu")
    words = ("run", tiny_bundle.path, images, "--engine", "ort-cpu")
    status, out, _ = lineproof(*words, "--out", tmp_path / "out")
    assert status == 0
    assert [json.loads(line)["verdict"] for line in out.splitlines()] == ["NG", "OK"]
    assert (tmp_path / "out" / "verdicts.jsonl").read_text() == out
    status, out, _ = lineproof(*words, "--threshold", "1000", "--json")
    shown = only_json(out)
    assert [item["verdict"] for item in shown["verdicts"]] == ["OK", "OK"]
    assert (shown["num_files"], shown["num_errors"]) == (2, 0)


def test_run_refuses_results_of_another_run_before_any_work(lineproof, tiny_bundle, images, tmp_path):
    needs("ort-cpu")
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    words = ("run", tiny_bundle.path, images, "--engine", "ort-cpu", "--out", tmp_path / "out", "--quiet")
    assert lineproof(*words)[0] == 0
    before = (tmp_path / "out" / "verdicts.jsonl").read_text()
    status, out, err = lineproof(*words, "--threshold", "1000")
    assert (status, out) == (1, "")
    assert (
        "holds results of another run; nothing was judged. Give another --out, or go on in this one with --append"
        in err
    )
    status, out, err = lineproof(*words, "--append", "--threshold", "1000")
    assert (status, out) == (1, "")
    assert "verdicts of another decision (threshold " in err
    assert (tmp_path / "out" / "verdicts.jsonl").read_text() == before
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2
    status, out, err = lineproof(*words, "--append")
    assert (status, len(out.splitlines()), err) == (0, 2, "")
    status, out, err = lineproof(*words[:-1], "--append", "--skip-judged")
    assert (status, out) == (0, "")
    assert "note: 2 of 2 files skipped: judged before, and not changed since." in err
    assert len((tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()) == 4


def test_run_in_json_is_one_object_also_where_files_give_no_verdict(lineproof, tiny_bundle, images, tmp_path):
    needs("ort-cpu")
    tiny_bundle.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    (images / "cut.png").write_bytes(b"x")
    status, out, err = lineproof("run", tiny_bundle.path, images, "--engine", "ort-cpu", "--json", "--quiet")
    shown = only_json(out)
    assert status == shown["status"] == 1
    assert [item["verdict"] for item in shown["verdicts"]] == ["NG", "ERR", "OK"]
    assert shown["kind"] == "BadInputError"
    assert err == f"error: {shown['error']}\n" == "error: 1 of 3 files gave no verdict; see the ERR lines.\n"
    (tmp_path / "o").mkdir()
    words = ("run", tiny_bundle.path, images / "bad.png", "--engine", "ort-cpu", "--json", "--out", tmp_path / "o")
    assert only_json(lineproof(*words)[1])["num_judged"] == 1
    shown = only_json(lineproof(*words, "--append", "--skip-judged")[1])
    assert shown == {
        "verdicts": [],
        "num_files": 0,
        "num_judged": 0,
        "num_errors": 0,
        "num_skipped": 1,
        "conversions": [],
    }


def test_the_documented_keys_of_a_verdict_are_the_printed_ones(lineproof, tiny_bundle, images, tmp_path):
    needs("ort-cpu")
    page = (ROOT / "docs" / "run.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page.split("## A verdict")[1].split("\n## ")[0], re.MULTILINE)
    (images / "cut.png").write_bytes(b"x")
    _, out, _ = lineproof("run", tiny_bundle.path, images, "--engine", "ort-cpu", "--out", tmp_path / "out")
    lines = [json.loads(line) for line in out.splitlines()]
    only_with_error = {"error", "kind"}
    for line in lines:
        missing = {"overlay"} if line["verdict"] == "ERR" else only_with_error
        assert set(line) == set(documented) - missing
    assert len(documented) == len(set(documented))


def test_run_says_once_what_was_converted_and_swaps_the_channels_where_asked(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    for name, level in (("a", 30), ("b", 200)):
        Image.fromarray(np.full((12, 16), level, np.uint8)).save(tmp_path / f"{name}.png")
    words = (
        "run",
        tiny_bundle.path,
        tmp_path / "a.png",
        tmp_path / "b.png",
        "--engine",
        "ort-cpu",
        "--json",
        "--quiet",
    )
    status, out, err = lineproof(*words)
    said = "2 of 2 images: grey, repeated to R, G and B for a colour bundle."
    assert status == 0
    assert err.count("note: ") == 1
    assert err.endswith(f"note: {said}\n")
    assert only_json(out)["conversions"] == [said]
    status, out, _ = lineproof(*words, "--order", "bgr")
    assert status == 0
    assert [item["verdict"] for item in only_json(out)["verdicts"]] == ["OK", "NG"]
    status, out, err = lineproof(*words, "--order", "grb")
    assert status == 2
    assert "order (--order) is 'grb'; this bundle takes rgb frames: expected rgb or bgr." in err


def test_other_data_must_be_accepted(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    training = dataclasses.replace(tiny_bundle.manifest.training, category="hazelnut")
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, training=training)).path
    parts = _parts(tmp_path / "screw")
    words = (bundle, "--data", parts, "--engine", "ort-cpu", "--quiet")
    for command in (("evaluate",), ("verify", "--reference", "openvino"), ("badcases",)):
        status, out, err = lineproof(*command, *words)
        assert (status, out) == (1, "")
        assert "tiny was trained on hazelnut; the images of" in err
        assert "accept these with --other-data" in err
    status, out, err = lineproof("evaluate", *words, "--other-data", "--json")
    assert status == 0
    assert err.startswith("note: Other data: tiny was trained on hazelnut")
    assert only_json(out)["evaluated"][0]["part_note"].startswith("Other data: ")


def test_calibrate_sets_one_engines_threshold(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    for level in range(10):
        Image.fromarray(np.full((12, 16, 3), level, np.uint8)).save(tmp_path / f"{level}.png")
    status, out, _ = lineproof(
        "calibrate", tiny_bundle.path, "--data", tmp_path, "--engine", "ort-cpu", "--max-false-reject", "10%", "--json"
    )
    assert status == 0
    assert only_json(out)["num_good"] == 10
    np.testing.assert_allclose(open_bundle(tiny_bundle.path).manifest.threshold_for("ort-cpu").value, 8.5 / 255)


def test_a_report_is_a_page(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    status, _, _ = lineproof("verify", tiny_bundle.path, "--engine", "ort-cpu", "--report", tmp_path / "new" / "r.html")
    assert status == 0
    text = (tmp_path / "new" / "r.html").read_text()
    assert "lineproof verify" in text
    assert "Parity passed" in text


def test_short_forms_take_the_newest_bundle(lineproof, tiny_bundle):
    needs("ort-cpu")
    Path("tiny.bundle").symlink_to(tiny_bundle.path)
    for words in (["verify", "--engine", "ort-cpu"], ["inspect"]):
        status, out, _ = lineproof(*words)
        assert status == 0
        assert "tiny.bundle" in out or "ort-cpu" in out


def test_export_without_a_run_says_how_to_make_one(lineproof):
    pytest.importorskip("torch")
    status, out, err = lineproof("export", "fastflow")
    assert (status, out) == (1, "")
    assert "There is no trained fastflow under ./runs" in err
    assert "lineproof train fastflow --data DIR --category NAME" in err
    assert "lineproof export fastflow --sample" in err
    assert os.listdir() == []


def test_errors_are_one_sentence_and_verbose_shows_where(lineproof):
    _, _, err = lineproof("inspect", "absent.bundle")
    assert err == "error: absent.bundle is not a bundle (nothing there). Make one with `lineproof export`.\n"
    _, _, err = lineproof("inspect", "absent.bundle", "--verbose")
    assert "Traceback" in err
    assert err.endswith("Make one with `lineproof export`.\n")


def fail_with(monkeypatch, error):
    """Let ``lineproof doctor`` raise ``error``."""
    from lineproof.runtime import diagnosis as describe

    def examine():
        raise error

    monkeypatch.setattr(describe, "examine", examine)


def os_error(code, path):
    return OSError(code, os.strerror(code), path)


class OutOfMemoryError(RuntimeError):
    """Named like PyTorch's."""


@pytest.mark.parametrize(
    ("error", "status", "kind", "said"),
    [
        (os_error(errno.ENOSPC, "d/x.bin"), 1, "OSError", "d/x.bin: no space left on device. Free some space"),
        (os_error(errno.EACCES, "d"), 1, "PermissionError", "d: permission denied. Change its permissions"),
        (os_error(errno.EIO, None), 1, "OSError", "standard output: input/output error. The disk"),
        (MemoryError(), 1, "MemoryError", "Out of memory. Give it a smaller batch"),
        (
            OutOfMemoryError("Tried to allocate 2 GiB"),
            1,
            "MemoryError",
            "Out of memory (Tried to allocate 2 GiB). Give",
        ),
        (KeyboardInterrupt(), 130, "StoppedError", "Stopped by Ctrl-C before its end. Nothing that was there"),
        (ModuleNotFoundError("No module", name="timm"), 3, "EnvironmentMissingError", "The package timm is missing."),
        (
            ImportError("libx.so: gone", name="torch"),
            3,
            "EnvironmentMissingError",
            "torch cannot be loaded (libx.so: gone)",
        ),
        (ParityError("no"), 4, "ParityError", "no"),
    ],
)
def test_every_error_is_a_sentence_and_in_json_an_object(lineproof, monkeypatch, error, status, kind, said):
    fail_with(monkeypatch, error)
    code, out, err = lineproof("doctor")
    assert (code, out) == (status, "")
    assert err.startswith(f"error: {said}")
    assert "Traceback" not in err
    assert err.count("\n") == 1
    code, out, err = lineproof("doctor", "--json")
    assert code == status
    value = only_json(out)
    assert (value["kind"], value["status"]) == (kind, status)
    assert err == f"error: {value['error']}\n"
    _, _, err = lineproof("doctor", "-qv")
    assert "Traceback" in err


def test_a_mistake_of_ours_is_seen_whole_and_still_an_object(monkeypatch, capsys):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    monkeypatch.setattr(sys, "argv", ["lineproof", "doctor", "--json"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
    assert only_json(capsys.readouterr().out) == {"error": "division by zero", "kind": "ZeroDivisionError", "status": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "--frobnicate"), "No such option"),
        (("exprot",), "No such command 'exprot'"),
        (("verify", "--batch", "many"), "--batch"),
        (("run",), "Missing argument"),
        (("verify", "x.bundle", "--engine", "ort-cpu"), "x.bundle is not a bundle"),
    ],
)
def test_errors_in_json_are_one_object(lineproof, words, said):
    status, out, err = lineproof(*words, "--json")
    shown = only_json(out)
    assert said in shown["error"]
    assert shown["status"] == status == (1 if "x.bundle" in words else 2)
    assert shown["kind"] == ("BundleError" if "x.bundle" in words else "UsageError")
    assert said in " ".join(err.split())
    assert lineproof(*words)[1] == ""


def test_a_result_is_the_only_object(lineproof, tiny_bundle):
    """Where the result says what is wrong there is no second object after it."""
    status, out, err = lineproof("verify", tiny_bundle.path, "--engine", "null", "--json", "--quiet")
    assert (status, only_json(out)["passed"]) == (4, False)
    assert err.startswith("error: ")


def test_version(lineproof):
    from lineproof import __version__

    assert lineproof("--version") == (0, f"lineproof {__version__}\n", "")


def test_doctor_for_one_command(lineproof, monkeypatch):
    from lineproof.runtime import readiness

    status, out, err = lineproof("doctor", "--for", "sample")
    assert (status, err) == (0, "")
    assert out.startswith("lineproof sample: ready\nyes the folder ")
    monkeypatch.setattr(readiness, "find_spec", lambda _: None)
    status, out, err = lineproof("doctor", "--for", "train")
    assert status == 3
    assert "to fix: pip install 'torch>=2.9'" in out
    assert err == (
        "error: lineproof train cannot work here; missing: the module torch, the module torchvision, the module timm, "
        "the module FrEIA, the module safetensors.\n"
    )
    assert lineproof("doctor", "--for", "exprot")[0] == 2


def test_progress_is_on_stderr_and_quiet_is_quiet(lineproof, tiny_bundle):
    needs("ort-cpu")
    _, out, err = lineproof("verify", tiny_bundle.path, "--engine", "ort-cpu")
    assert "golden frames …" in err
    assert "golden frames …" not in out
    _, _, err = lineproof("verify", tiny_bundle.path, "--engine", "ort-cpu", "--quiet")
    assert err == ""


@pytest.fixture(scope="session")
def chain_folder(tmp_path_factory):
    from lineproof.data.sample.write import write_sample

    folder = tmp_path_factory.mktemp("chain")
    write_sample(folder / "data", num_train=10, num_test_good=2, num_test_defect=6, size_px=96)
    return folder


@pytest.mark.slow
def test_the_whole_chain(lineproof, chain_folder, monkeypatch):
    """train, export, verify, profile, run, each from what the one before wrote."""
    for package in ("timm", "onnxscript"):
        pytest.importorskip(package)
    needs("ort-cpu")
    monkeypatch.chdir(chain_folder)
    status, out, err = lineproof(
        "train", "padim", "--data", "data", "--category", "flange", "--backbone", "test_resnet", "--weights", "random",
        "--image-size", "48x96", "--set", "num_features=12", "--holdout", "0.4", "--json",
    )  # fmt: skip
    assert status == 0, err
    trained = only_json(out)
    assert trained["training"]["num_holdout"] == 4
    assert trained["detector"]["parameters"]["crop_px"] == [48, 96]
    status, out, err = lineproof("export", "padim", "--frame", "96x96x1", "--precision", "fp16", "--json")
    assert status == 0, err
    exported = only_json(out)
    assert exported["bundle"] == "flange-padim-fp16.bundle"
    assert exported["parity"]["passed"] is True
    assert exported["nodes_per_dtype"]["float16"] > 0
    status, out, err = lineproof("verify", "--data", "data", "--category", "flange", "--json", "--precision", "fp16")
    assert status == 0, err
    shown = only_json(out)
    assert shown["image_auroc"]["reference"] is not None
    assert abs(shown["aupro"]["reference"] - shown["aupro"]["engine"]) < 0.02
    status, out, err = lineproof("run", "flange-padim-fp16.bundle", "data/flange/test/good", "--out", "seen", "--quiet")
    assert status == 0, err
    assert len(out.splitlines()) == len(list(Path("seen/overlays").iterdir())) == 2
    run = next(Path("runs").iterdir())
    status, out, err = lineproof("calibrate", "--data", run, "--engine", "ort-cpu")
    assert status == 0, err
    assert "4 good parts" in out


def test_a_refit_from_the_command_line(lineproof, tmp_path):
    from lineproof.data.sample.write import write_sample

    pytest.importorskip("timm")
    write_sample(tmp_path / "data", num_train=10, num_test_good=2, num_test_defect=2, size_px=64)
    words = (
        "train", "padim", "--data", tmp_path / "data", "--category", "flange", "--backbone", "test_resnet", "--weights",
        "random", "--image-size", "48", "--set", "num_features=12", "--refit", "--out", "run",
    )  # fmt: skip
    status, out, err = lineproof(*words, "--json")
    assert status == 0, err
    result = only_json(out)
    assert result["training"]["refit"] == {"num_first": 8, "epochs": {}}
    assert (result["training"]["num_images"], len(result["holdout_scores"]), len(result["refit_scores"])) == (10, 2, 2)
    assert any(line.startswith("Refitted: ") for line in result["warnings"])
    assert "--refit" in json.loads(Path("run/train.json").read_text())["command"]


def test_verify_and_evaluate_count_the_same_masks(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    needs("openvino")
    parts = _parts(tmp_path / "parts")
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(parts / "masks" / "000.png")
    words = (tiny_bundle.path, "--data", parts, "--engine", "openvino", "--json", "--quiet")
    status, out, err = lineproof("verify", *words, "--reference", "ort-cpu")
    assert status == 0, err
    verified = only_json(out)
    evaluated = only_json(lineproof("evaluate", *words)[1])["evaluated"][0]["accuracy"]["pixel"]
    assert verified["aupro"]["engine"] == evaluated["aupro"]
    assert verified["pixel_auroc"]["engine"] == evaluated["auroc"]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("train", "padim", "--data", "x", "--set", "a=1", "b=2"), "repeat it for each, --set A --set B"),
        (("profile", "x", "--engine", "ort-cpu", "openvino"), "repeat it for each, --engine A --engine B"),
        (("train", "padim", "b=2", "--data", "x"), ""),
    ],
)
def test_words_left_over_after_an_option_that_is_repeated(lineproof, words, advice):
    status, out, err = lineproof(*words)
    assert (status, out) == (2, "")
    assert "unexpected extra argument" in err
    assert ("takes one value" in err) == bool(advice)
    assert advice in err


def test_evaluate_takes_the_newest_bundle_as_the_others_do(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    words = ("evaluate", "--data", _parts(tmp_path / "parts"), "--engine", "ort-cpu", "--json", "--quiet")
    status, _, err = lineproof(*words)
    assert status == 1
    assert "There is no *.bundle in " in err
    shutil.copytree(tiny_bundle.path, "new.bundle")
    Path("old.bundle").mkdir()
    Path("old.bundle/manifest.json").write_text("{}")
    os.utime("old.bundle/manifest.json", (1, 1))
    status, out, err = lineproof(*words)
    assert status == 0, err
    assert only_json(out)["evaluated"][0]["bundle"] == "tiny"
    os.utime("new.bundle/manifest.json", (0, 0))
    status, _, err = lineproof(*words)
    assert status == 1
    assert "old.bundle" in err


def test_outputs_are_kept_and_judged_again_without_the_model(lineproof, tiny_bundle, monkeypatch, tmp_path):
    needs("ort-cpu")
    monkeypatch.chdir(tmp_path)
    bundle = tiny_bundle.path
    parts = _parts(tmp_path / "parts")
    status, out, err = lineproof(
        "evaluate", bundle, "--data", parts, "--engine", "ort-cpu", "--save-outputs", "kept.npz", "--table", "1",
        "--table-file", "table.md", "--json", "--quiet",
    )  # fmt: skip
    assert (status, err.count("\n")) == (0, 2)
    assert err.startswith("note: The training images of ")
    assert "ort-cpu is not proved for this decision (unverified)" in err.splitlines()[1]
    shown = only_json(out)
    assert shown["evaluated"][0]["parity"] == "unverified"
    assert shown["evaluated"][0]["accuracy"]["image"]["auroc"] == 1.0
    assert Path("table.md").read_text().startswith("Table 1:")
    status, out, err = lineproof("evaluate", "kept.npz", "--threshold", "0.0", "--quiet")
    assert (status, err.count("\n")) == (0, 2)
    assert err.startswith("note: The training images of ")
    assert "ort-cpu is not proved for this decision (unverified)" in err.splitlines()[1]
    assert "2 of 2 good images rejected" in out
    assert "at the image's resolution" in out
    status, out, err = lineproof("evaluate", "kept.npz", "--resolution", "map", "--quiet")
    assert status == 0
    assert "at the map's resolution" in out
    status, out, err = lineproof("evaluate", "kept.npz", "--threshold", "1.0", "--quiet")
    assert out.splitlines()[0] == "tiny (fp32) on ort-cpu: Misses 3 of 3 defects at this threshold (1)."
    status, out, err = lineproof("compare", "kept.npz", "kept.npz", "--resamples", 100, "--quiet", "--report", "c.html")
    assert (status, err.count("\n")) == (0, 2)
    assert err.startswith("note: The training images of ")
    assert "ort-cpu is not proved for this decision (unverified)" in err.splitlines()[1]
    assert "0 of 5 differ" in out
    assert "Images whose maps differ most" in Path("c.html").read_text()
    status, out, err = lineproof("badcases", "kept.npz", "--threshold", "0.0", "--quiet")
    assert (status, err.count("\n")) == (0, 2)
    assert err.startswith("note: The training images of ")
    assert "ort-cpu is not proved for this decision (unverified)" in err.splitlines()[1]
    assert "false rejects shown: 2" in out
    assert Path("badcases.html").is_file()


def test_too_few_usable_images_are_an_error_after_the_result(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    parts = _parts(tmp_path / "parts")
    for index in (0, 1):
        Image.new("RGB", (20, 12)).save(parts / "bad" / f"{index:03d}.png")
    words = ("--data", parts, "--engine", "ort-cpu", "--quiet")
    for command in ("evaluate", "badcases"):
        status, out, err = lineproof(command, tiny_bundle.path, *words)
        assert status == 1
        first = out.splitlines()[0]
        assert "Only 3 of 5 images could be used (60.0%). Not used: bad/000.png, bad/001.png: the image is" in first
        assert "Only 3 of 5 images could be used (60.0%); expected at least 90%" in err
        assert lineproof(command, tiny_bundle.path, *words, "--min-used", "60%")[0] == 0
    status, out, err = lineproof("evaluate", tiny_bundle.path, *words, "-v")
    assert "  bad/001.png: the image is 12x20 (height x width)" in out
    assert lineproof("compare", tiny_bundle.path, tiny_bundle.path, *words)[0] == 1
    assert lineproof("compare", tiny_bundle.path, tiny_bundle.path, *words, "--min-used", "0.5")[0] == 0


def test_every_command_says_what_the_data_set_lacks(lineproof, tiny_bundle, tmp_path):
    """An empty mask and a copied test image: named by every command, once, and the mask counts nowhere."""
    needs("ort-cpu")
    needs("openvino")
    parts = _parts(tmp_path / "parts")
    Image.new("L", (16, 12)).save(parts / "masks" / "001.png")
    (parts / "good" / "009.png").write_bytes((parts / "good" / "000.png").read_bytes())
    words = (tiny_bundle.path, "--data", parts, "--engine", "ort-cpu")
    commands = {
        "evaluate": words,
        "badcases": words,
        "verify": (*words, "--reference", "openvino"),
        "compare": (tiny_bundle.path, *words),
    }
    head = "parts: 8 training, 2 good and 3 defective test images (bad 3), 2 with masks; plain folder; good = good"
    problems = [
        "masks/001.png: marks nothing; its image counts as unmarked.",
        "good/009.png: is byte-identical to a training image, good/000.png.",
    ]
    for command, given in commands.items():
        err = lineproof(command, *given)[2]
        for sentence in (head, *problems):
            assert err.count(f"note: {sentence}\n") == 1, (command, sentence)
        data = only_json(lineproof(command, *given, "--json")[1])
        notes = data["evaluated"][0]["data"] if "evaluated" in data else data["data"]
        assert (notes[0] if isinstance(notes, list) else notes)["problems"] == problems
        assert f"note: {problems[0]}\n" in lineproof(command, *given, "--quiet")[2]
    assert "note: good holds the good training images.\n" in lineproof("evaluate", *words, "-v")[2]
    out = lineproof("evaluate", *words, "--json")[1]
    assert only_json(out)["evaluated"][0]["accuracy"]["pixel"]["num_images"] == 4


def test_kept_outputs_say_what_the_data_set_lacked(lineproof, tiny_bundle, tmp_path):
    """Also where the data set is gone: the check was made when the outputs were."""
    needs("ort-cpu")
    parts = _parts(tmp_path / "parts")
    Image.new("L", (16, 12)).save(parts / "masks" / "001.png")
    made = lineproof("evaluate", tiny_bundle.path, "--data", parts, "--save-outputs", "kept.npz", "--json")
    shutil.rmtree(parts)
    later = lineproof("evaluate", "kept.npz", "--json")
    assert only_json(later[1]) == only_json(made[1])
    assert later[2] == made[2].split("images …\n")[-1]
    assert "note: masks/001.png: marks nothing; its image counts as unmarked.\n" in later[2]


@pytest.mark.parametrize(("gone", "noun"), [("bad", "defective"), ("good", "good")])
def test_a_test_split_without_a_class_is_the_first_thing_said(lineproof, tiny_bundle, tmp_path, gone, noun):
    needs("ort-cpu")
    needs("openvino")
    parts = _parts(tmp_path / "parts")
    split = tmp_path / "split" / "parts"
    for source, place in (("good", "train/good"), ("good", "test/good"), ("bad", "test/bad")):
        shutil.copytree(parts / source, split / place)
    shutil.rmtree(split / "test" / gone)
    words = (tiny_bundle.path, "--data", split, "--engine", "ort-cpu", "--quiet")
    for command, given in {
        "evaluate": words, "badcases": words, "verify": (*words, "--reference", "openvino"),
        "compare": (tiny_bundle.path, *words),
    }.items():  # fmt: skip
        first, *rest = lineproof(command, *given)[1].splitlines()
        assert first.endswith(f'No {noun} test image: figures that need one are "-".'), command
        if command in ("verify", "compare"):
            assert "Image AUROC: -." in rest
            assert "AUPRO: -." in rest


def test_a_set_that_verify_could_use_only_in_part(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    needs("openvino")
    parts = _parts(tmp_path / "parts")
    for index in (0, 1):
        Image.new("RGB", (20, 12)).save(parts / "bad" / f"{index:03d}.png")
    words = ("verify", tiny_bundle.path, "--data", parts, "--engine", "ort-cpu", "--reference", "openvino", "--quiet")
    status, out, err = lineproof(*words)
    assert status == 1
    names = "Only 3 of 5 images could be used (60.0%). Not used: bad/000.png, bad/001.png: the image is 12x20"
    assert out.startswith(names)
    assert out.count("bad/001.png") == 1
    assert "(60.0%); expected at least 90%" in err
    assert lineproof(*words, "--min-used", "60%")[0] == 0
    assert "  bad/001.png: the image is 12x20" in lineproof(*words, "-v")[1]
    assert only_json(lineproof(*words, "--json")[1].partition("\n{")[0] or "{}") is not None


def test_a_threshold_from_part_of_the_images_is_not_set(lineproof, tiny_bundle, tmp_path):
    needs("ort-cpu")
    held = tmp_path / "held"
    held.mkdir()
    rng = np.random.default_rng(3)
    for index in range(10):
        size = (20, 12) if index < 2 else (16, 12)
        Image.fromarray(rng.integers(0, 60, (size[1], size[0], 3)).astype(np.uint8)).save(held / f"{index}.png")
    words = ("calibrate", tiny_bundle.path, "--data", held, "--engine", "ort-cpu", "--quiet")
    before = open_bundle(tiny_bundle.path).manifest
    status, out, err = lineproof(*words)
    assert status == 1
    assert out.startswith("Only 8 of 10 images could be used (80.0%). Not used: ")
    assert "The threshold was not set. Only 8 of 10 images could be used (80.0%)" in err
    assert open_bundle(tiny_bundle.path).manifest == before
    status, out, err = lineproof(*words, "--min-used", "80%")
    assert status == 0
    assert open_bundle(tiny_bundle.path).manifest.threshold_for("ort-cpu").num_good == 8


def _parts(folder):
    rng = np.random.default_rng(0)
    for kind, num in (("good", 10), ("bad", 3), ("masks", 3)):
        (folder / kind).mkdir(parents=True)
        for index in range(num):
            frame = rng.integers(0, 60, (12, 16, 3)).astype(np.uint8)
            frame[3:6, 4:9] += np.uint8(150 if kind == "bad" else 0)
            mask = np.zeros((12, 16), np.uint8)
            mask[3:6, 4:9] = 255
            Image.fromarray(mask if kind == "masks" else frame).save(folder / kind / f"{index:03d}.png")
    return folder


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("evaluate", "gone.npz"), "--report"),
        (("evaluate", "gone.npz"), "--save-outputs"),
        (("evaluate", "gone.npz", "--table", "1"), "--table-file"),
        (("compare", "a.npz", "b.npz"), "--report"),
        (("badcases", "a.npz"), "--out"),
        (("verify", "gone.bundle"), "--report"),
        (("profile", "gone.bundle"), "--report"),
    ],
)
def test_places_are_asked_before_the_work(lineproof, monkeypatch, words, option):
    Path("file").write_text("x")
    status, out, err = lineproof(*words, option, "file/below.md")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {option} file/below.md cannot be written: ")
    assert err.endswith("file is a file. Name another place.\n")
    monkeypatch.setattr("lineproof.commands._console.os.access", lambda *_: False)
    assert f"error: {option} new/page.md cannot be written: " in lineproof(*words, option, "new/page.md")[2]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("evaluate", "gone.bundle", "--data", "."), 1, "gone.bundle is not a bundle"),
        (("evaluate", "gone.npz", "--table", "3"), 2, "Table 3: lineproof profile"),
        (("evaluate", "gone.npz", "--table-file", "t.md"), 2, "the number of a table"),
        (
            ("compare", "a.npz", "b.npz", "--engine", "x", "--engine", "y", "--engine", "z"),
            2,
            "--engine was given 3 times",
        ),
        (("compare", "a.npz", "b.npz", "--resamples", "5"), 1, "at least 100"),
        (("badcases", "a.npz", "--top", "0"), 2, "top (--top) is 0"),
        (
            ("evaluate", "gone.npz", "--resolution", "frame"),
            2,
            "resolution (--resolution) is 'frame'; expected image or map",
        ),
        (("badcases", "gone.npz", "--min-used", "2"), 2, "--min-used is '2'; expected a share"),
        (("profile", "--table", "2"), 2, "lineproof evaluate --table 2"),
    ],
)
def test_what_cannot_be_evaluated(lineproof, words, status, said):
    code, out, err = lineproof(*words)
    assert (code, out) == (status, "")
    assert said in err


@pytest.mark.parametrize(("words", "place"), [(["run"], "--out"), (["evaluate", "--data"], "--report")])
def test_a_view_of_nothing_that_is_kept_is_refused(lineproof, tiny_bundle, images, words, place):
    status, out, err = lineproof(words[0], tiny_bundle.path, *words[1:], images, "--view", "depth")
    assert (status, out) == (2, "")
    assert f"--view was given without {place}" in err


def test_a_view_of_an_image_is_refused(lineproof, tiny_bundle, images):
    needs("ort-cpu")
    status, _, err = lineproof("run", tiny_bundle.path, images, "--engine", "ort-cpu", "--out", "o", "--view", "depth")
    assert status == 2
    assert "view (--view) is 'depth'; frames of this bundle can be shown as image." in err
