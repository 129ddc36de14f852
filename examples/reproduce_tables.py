"""Tables 1, 2, 5 and 6 of Zheng et al. 2022 with your own rows: any detector, any category, several seeds.

Install:  pip install -e '.[train,cpu]'      (in a checkout)
Run:      python examples/reproduce_tables.py MVTEC WORK --row padim fastflow --category screw --seed 0 1 2
          python examples/reproduce_tables.py MVTEC3D WORK --table 5 6 --row patchcore depth_vm_rgb --category bagel
          docs/reproduce.md says where to get both data sets, and what each detector costs.
Prints:   each cell as it is done (figures, mean and deviation over the seeds), then the tables, in WORK all columns.

A cell is a row, a category and a seed, by a preset and --set KEY=VALUE, each of which has a folder in WORK. The same
command does only what is missing, and an interrupted training goes on where it was. A cell that fails is named, the
others go on, the exit status is 1.
"""

import argparse
import hashlib
import itertools
import json
import sys
from pathlib import Path
from statistics import mean, stdev

from lineproof.bundle.atomic import write_atomic, write_json
from lineproof.core.errors import LineproofError, StoppedError
from lineproof.detectors.training.from_folder import train_detector
from lineproof.detectors.training.options import TrainOptions
from lineproof.eval.accuracy.evaluate import evaluate
from lineproof.eval.accuracy.request import EvaluationRequest
from lineproof.export.bundle import export_bundle
from lineproof.report.published import ACCURACY_TABLES, paper_table, published

TABLES = {number: published()["tables"][number] for number in ACCURACY_TABLES}
METRICS = sorted({table["metric"] for table in TABLES.values()})


def main(given: argparse.Namespace) -> int:
    """Do the cells that are missing, then print the tables; 1 where a cell failed, else 0."""
    shown = {number: TABLES[number] for number in given.table}
    rows = given.row or dict.fromkeys(row for table in shown.values() for row in table["paper"])
    categories = given.category or sorted(TABLES[given.table[0]]["paper"]["cflow"]["categories"])
    # Zheng et al. trained six detectors of images on MVTec 3D-AD themselves, and Table 4 says how.
    of_table_4 = published()["tables"]["4"]["paper"] if {"5", "6"} & {*shown} else {}
    presets = {row: given.preset or ("table4" if row in of_table_4 else "paper") for row in rows}
    figures, failed, asked = {}, 0, " with --set" if given.set else ""
    for row, category, seed in itertools.product(rows, categories, given.seed):
        try:
            result = cell(given, row, category, seed, presets[row])
        except (StoppedError, KeyboardInterrupt) as error:
            print(str(error) or "Stopped. The same command goes on.", file=sys.stderr)
            return 130
        except LineproofError as error:
            failed += 1
            print(f"{row} {category} seed {seed}: failed. {error}", flush=True)
            continue
        for metric in (metric for metric in METRICS if result[metric] is not None):
            values = figures.setdefault((metric, row), {}).setdefault(category, [])
            values.append(result[metric])
            spread = f", mean {mean(values):.4f} ± {stdev(values):.4f}" if values[1:] else ""
            print(f"{row} {category} seed {seed}: {metric} {values[-1]:.4f}{spread}", flush=True)
    for number, table in shown.items():
        of_metric = {row: of for (metric, row), of in figures.items() if metric == table["metric"]}
        measured = {
            f"{row} ({presets[row]}{asked}, seeds: {min(map(len, of.values()))})": {name: mean(of[name]) for name in of}
            for row, of in of_metric.items()
        }
        print(f"\n{paper_table(number, measured).text()}")
        write_atomic(given.work / f"table{number}.md", paper_table(number, measured).markdown().encode())
    return int(failed > 0)


def cell(given, row, category, seed, preset):
    """Train, export and evaluate one cell, unless its result is there; return its figures."""
    # A detector of scans has two rows, without colours and with them.
    detector = row.removesuffix("_rgb")
    colours = {"rgb": detector != row} if f"{detector}_rgb" in TABLES["5"]["paper"] else {}
    settings = {**colours, **dict(pair.partition("=")[::2] for pair in given.set)}
    asked = {"preset": preset, "settings": settings, "data": str(given.data.resolve()), "seed": seed}
    name = f"{row}-{category}-{seed}"
    # Other settings are other trainings: a trial must not stand in the way of the paper's.
    changes = f"-{hashlib.sha256(' '.join(sorted(given.set)).encode()).hexdigest()[:6]}" if given.set else ""
    work = given.work / f"{preset}{changes}"
    path, run = work / "cells" / f"{name}.json", work / "runs" / name
    if path.exists() and (kept := json.loads(path.read_text()))["asked"] == asked:
        return kept
    how = TrainOptions(seed=seed, device=given.device, num_workers=given.workers)
    of = {"category": category, "settings": settings, "preset": preset}
    trained = train_detector(detector, given.data, **of, out=run, options=how)
    bundle = export_bundle(run, work / "bundles" / f"{name}.bundle")
    (item,) = evaluate([bundle.path], EvaluationRequest(data=given.data, category=category, engine=given.engine)).items
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"asked": asked, "fit": trained.record.fit, **{m: item.accuracy.value(m) for m in METRICS}})
    return json.loads(path.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=["1", "2"])
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--workers", type=int, default=0)
    for option in ("row", "category", "set"):
        parser.add_argument(f"--{option}", nargs="+", action="extend", default=[])
    for option in ("preset", "device", "engine"):
        parser.add_argument(f"--{option}", default={"device": "cpu", "engine": "auto"}.get(option))
    sys.exit(main(parser.parse_args()))
