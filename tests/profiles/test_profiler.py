import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from lineproof.core.errors import BudgetError, LineproofError, UsageError
from lineproof.profiles.cold_start import ColdStart, measure_cold_start
from lineproof.profiles.memory import peak_host_bytes
from lineproof.profiles.profiler import profile, profile_many
from lineproof.profiles.report import check_deadlines
from lineproof.profiles.table import latency_table, method_table
from lineproof.profiles.timing import Schedule
from lineproof.runtime.engine import EngineOptions

MS = 1_000_000
SHORT = Schedule(num_runs=20, num_warmup=1, block_size=5, pause_ms=0, num_lead_in=1)


def spiky(number):
    """2 + 10 + 3 ms, and 70 ms in every tenth call."""
    return (2 * MS, 70 * MS if number % 10 == 9 else 10 * MS, 3 * MS)


@pytest.fixture
def compare(tiny_bundle, add_timed, clock):
    """Profile engines on the test's clock, without fresh processes."""

    def run(*engines, **changes):
        arguments = {"schedule": SHORT, "num_cold_starts": 0, "clock": clock, **changes}
        return profile_many(tiny_bundle, engines, **arguments)

    add_timed("steady", lambda _: (2 * MS, 10 * MS, 3 * MS))
    add_timed("spiky", spiky)
    add_timed("fast", lambda _: (1 * MS, 1 * MS, 1 * MS), device_ns=MS // 2)
    return run


def test_json_has_the_promised_keys(compare):
    (report,) = compare("steady", batches=(4, 1)).reports
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert {
        "engine", "precision", "compute_dtype", "batch", "latency_ms", "upload_ms", "execute_ms", "download_ms",
        "device_ms", "harness_ms", "fps", "cold_start_ms", "peak_host_mb", "device_mb", "extra_parameters_m",
        "constants_mb", "model_mb", "plan_mb", "flops", "total_gflops", "missed_deadline", "deadline", "method",
        "engine_details", "environment", "batches", "cold_starts",
    } <= set(plain)  # fmt: skip
    assert set(plain["latency_ms"]) == {"min", "mean", "p50", "p90", "p95", "p99", "p999", "max"}
    assert [item["batch"] for item in plain["batches"]] == [4, 1]
    assert (plain["batch"], plain["latency_ms"]["p50"], plain["execute_ms"]["p50"]) == (4, 15.0, 10.0)
    np.testing.assert_allclose([plain["fps"], plain["batches"][1]["fps"]], [4 / 0.015, 1 / 0.015])
    assert plain["harness_ms"]["max"] == 0.0
    assert plain["device_ms"] is plain["cold_start_ms"] is plain["peak_host_mb"] is None
    assert plain["environment"]["packages"]["numpy"] == np.__version__
    assert plain["method"]["num_runs"] == 20
    assert "samples" not in plain


def test_samples_are_kept_and_written_on_request(compare):
    (report,) = compare("spiky").reports
    assert len(report.batches[0].samples.total_ns) == 20
    (batch,) = report.to_dict(with_samples=True)["batches"]
    assert len(batch["samples"]["execute_ns"]) == 20
    assert max(batch["samples"]["execute_ns"]) == 70 * MS
    assert report.batches[0].latency.max == 75.0


def test_throughput_counts_the_slow_calls_too(compare):
    (report,) = compare("spiky").reports
    total_ns = report.batches[0].samples.total_ns
    num_slow = int((total_ns > 70 * MS).sum())
    assert num_slow > 0
    np.testing.assert_allclose(report.batches[0].fps, 20 / ((num_slow * 75 + (20 - num_slow) * 15) / 1000))


def test_deadline_decides(compare):
    assert not compare("steady").missed_deadline
    comparison = compare("steady", deadline_ms=15.0)
    assert not comparison.missed_deadline
    check_deadlines(comparison.reports)
    missed = compare("steady", "spiky", deadline_ms=20.0)
    assert [report.missed_deadline for report in missed.reports] == [False, True]
    assert missed.missed_deadline
    assert missed.to_dict()["missed_deadline"] is True
    words = r"^tiny on spiky at batch 1: \d of 20 calls took longer than 20 ms.*75 ms"
    with pytest.raises(BudgetError, match=words) as caught:
        check_deadlines(missed.reports)
    assert caught.value.exit_status == 5
    assert any("missed by" in line for line in missed.reports[1].summary_lines())


def test_engines_are_compared_side_by_side(compare, add_timed):
    comparison = compare("steady", "fast", batches=(1, 2))
    assert [(entry["engine"], entry["baseline"], entry["batch"]) for entry in comparison.ratios()] == [
        ("fast", "steady", 1),
        ("fast", "steady", 2),
    ]
    np.testing.assert_allclose([entry["median_ratio"] for entry in comparison.ratios()], 0.2)
    assert comparison.reports[1].batches[0].to_dict()["device_ms"]["p50"] == 0.5
    plain = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [report["engine"] for report in plain["reports"]] == ["steady", "fast"]
    closed = [name for name, what in add_timed.calls if what == "closed"]
    assert sorted(closed) == ["fast", "steady"]


def test_each_engine_gets_the_options_that_it_can_honour(compare, add_timed):
    add_timed("gpu", lambda _: (MS, MS, MS), uses_gpu=True, takes_threads=False)
    asked = EngineOptions(device=1, num_threads=2, compute_dtype="bf16", allow_fallback=True)
    comparison = compare("steady", "gpu", "null", options=asked)
    opened = dict(add_timed.opened)
    assert opened["steady"] == dataclasses.replace(asked, device=0)
    assert opened["gpu"] == dataclasses.replace(asked, num_threads=0)
    assert [report.compute_dtype for report in comparison.reports] == ["bf16", "bf16", "f32"]


def test_an_option_that_none_can_honour_is_refused_by_name(compare):
    with pytest.raises(UsageError, match=r"Engine ort-cpu runs on the CPU and has no device 1\. Leave --device away"):
        compare("ort-cpu", options=EngineOptions(device=1))
    with pytest.raises(UsageError, match=r"Engine ort-cpu cannot compute in 'bf16'"):
        compare("steady", "ort-cpu", options=EngineOptions(compute_dtype="bf16"))


def test_tables(compare):
    comparison = compare("steady", "fast")
    header, first, second = latency_table(comparison).splitlines()
    assert header.split()[:4] == ["engine", "precision", "batch", "p50"]
    assert first.split() == ["steady", "fp32", "1", *["15.000"] * 6, "66.7", "-", "-", "1.000"]
    assert second.split() == ["fast", "fp32", "1", *["3.000"] * 6, "333.3", "-", "-", "0.200"]
    header, first, _ = method_table(comparison.reports).splitlines()
    assert "extra parameters (M)" in header
    assert first.split() == ["tiny", "steady", "0.00", "0.0", "0.00", "15.00", "66.7"]


def test_report_without_environment_is_refused(compare):
    (report,) = compare("steady").reports
    with pytest.raises(LineproofError, match=r"no cpu, os, packages; a figure without what it was measured on"):
        dataclasses.replace(report, environment={})
    with pytest.raises(LineproofError, match=r"no description of the engine"):
        dataclasses.replace(report, engine_details={})
    with pytest.raises(LineproofError, match="no batch size"):
        dataclasses.replace(report, batches=())


@pytest.mark.parametrize(("load", "is_busy"), [([0.9, 9.0, 9.0], False), ([1.5, 0.0, 0.0], True), (None, False)])
def test_busy_machine_is_said(compare, load, is_busy):
    (report,) = compare("steady").reports
    report = dataclasses.replace(report, environment={**report.environment, "load_average": load, "num_cores": 2})
    assert any("The machine was busy" in line for line in report.summary_lines()) == is_busy


def test_reports_are_appended(compare, tiny_bundle):
    compare("steady", record=False)
    assert not (tiny_bundle.path / "profile.json").exists()
    compare("steady", "fast")
    compare("spiky")
    entries = json.loads((tiny_bundle.path / "profile.json").read_text())
    assert [entry["engine"] for entry in entries] == ["steady", "fast", "spiky"]
    assert all(entry["time"] for entry in entries)


@pytest.mark.parametrize(
    ("engines", "changes", "message"),
    [
        ((), {}, "Engines to profile: none"),
        (("steady", "steady"), {}, "steady, steady; expected one or more, each once"),
        (("steady",), {"batches": ()}, r"Batch sizes to profile: \[\]"),
        (("steady",), {"batches": (1, 1)}, r"Batch sizes to profile: \[1, 1\]"),
        (("steady",), {"batches": (1, 9)}, r"batch \(--batch\) is 9; this bundle takes 1 to 8"),
        (("steady",), {"deadline_ms": 0.0}, r"deadline_ms \(--deadline-ms\) is 0\.0"),
    ],
)
def test_impossible_requests_are_refused_before_anything_runs(compare, add_timed, engines, changes, message):
    with pytest.raises(UsageError, match=message):
        compare(*engines, **changes)
    assert add_timed.calls == []


def test_null_engine_end_to_end_in_a_fresh_process(tiny_bundle):
    heard = []
    report = profile(
        tiny_bundle,
        engine="null",
        batches=(1, 8),
        num_runs=5,
        num_warmup=1,
        progress=lambda *event: heard.append(event[0]),
    )
    cold = report.cold_start
    parts = (cold.python_and_imports_ms, cold.open_bundle_ms, cold.open_engine_ms, cold.first_verdict_ms)
    assert all(part > 0 for part in parts)
    np.testing.assert_allclose(sum(parts), cold.total_ms)
    assert [item.batch for item in cold.memory] == [1, 8]
    assert cold.memory[1].host_bytes >= cold.memory[0].host_bytes > 1_000_000
    assert report.to_dict()["peak_host_mb"] == cold.memory[0].host_bytes / 1e6
    assert {"cold start of null", "batch 1", "batch 8"} <= set(heard)
    assert any(line.startswith("Cold start") for line in report.summary_lines())
    assert report.sizes.model_bytes == (tiny_bundle.path / "model.onnx").stat().st_size


def test_median_of_several_cold_starts_is_reported(compare):
    (report,) = compare("steady").reports
    starts = tuple(
        ColdStart(
            total_ms=total,
            python_and_imports_ms=0.0,
            open_bundle_ms=0.0,
            open_engine_ms=0.0,
            first_verdict_ms=0.0,
            memory=(),
        )
        for total in (30.0, 10.0, 20.0)
    )
    assert dataclasses.replace(report, cold_starts=starts).cold_start.total_ms == 20.0
    assert dataclasses.replace(report, cold_starts=starts[:2]).cold_start.total_ms == 10.0


def test_failing_fresh_process_says_why(tiny_bundle):
    (tiny_bundle.path / "model.onnx").write_bytes(b"altered")
    with pytest.raises(LineproofError, match=r"ended with status 1 .*model\.onnx was altered"):
        measure_cold_start(tiny_bundle, "null", options=EngineOptions())


def test_peak_host_memory_never_falls():
    before = peak_host_bytes()
    block = np.ones(40_000_000, np.uint8)
    after = peak_host_bytes()
    assert block.all()
    assert after >= max(before, block.nbytes)


def test_profiling_needs_no_training_package():
    code = (
        "import sys, lineproof.profiles.profiler, lineproof.profiles.table\n"
        "banned = {'torch', 'torchvision', 'timm', 'FrEIA', 'sklearn', 'scipy', 'onnx', 'onnxruntime', 'openvino'}\n"
        "print(sorted(banned & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert answer.stdout.strip() == "[]"
