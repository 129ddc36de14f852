"""Tables 1 and 2 of Zheng et al. 2022 with your own rows: any detector, any category, several seeds.

Install:  pip install -e '.[train,cpu]'      (in a checkout)
Run:      python examples/reproduce_table1.py MVTEC WORK --detector padim fastflow --category screw --seed 0 1 2
          MVTEC is the folder of MVTec AD; docs/reproduce.md says where to get it, and what each detector costs.
Prints:   each cell as it is done (figures, then mean and deviation over the seeds), then both tables.

A cell is a detector, a category and a seed. Its result lies in WORK/cells; the same command does only what is missing,
and an interrupted training goes on where it was. A cell that fails is named, the others go on, the exit status is 1.
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path

from lineproof.bundle.atomic import write_json
from lineproof.core.errors import LineproofError, StoppedError
from lineproof.data.counts import MVTEC_AD
from lineproof.detectors.table import DETECTORS
from lineproof.detectors.training.from_folder import train_detector
from lineproof.detectors.training.options import TrainOptions
from lineproof.eval.accuracy.evaluate import evaluate
from lineproof.eval.accuracy.request import EvaluationRequest
from lineproof.export.bundle import export_bundle
from lineproof.report.published import paper_table

TABLES = {"1": "image_auroc", "2": "pixel_auroc"}


def main(given: argparse.Namespace) -> int:
    """Do the cells that are missing, then print the tables; 1 where a cell failed, else 0."""
    figures, failed = {}, 0
    settings = dict(pair.split("=", 1) for pair in given.set)
    for detector, category, seed in itertools.product(given.detector, given.category, given.seed):
        asked = {"preset": given.preset, "settings": settings, "data": str(given.data.resolve()), "seed": seed}
        try:
            result = cell(given, detector, category, asked)
        except StoppedError as error:
            sys.exit(str(error))
        except LineproofError as error:
            failed += 1
            print(f"{detector} {category} seed {seed}: failed. {error}", flush=True)
            continue
        for metric in filter(result.get, TABLES.values()):
            values = figures.setdefault((metric, detector), {}).setdefault(category, [])
            values.append(result[metric])
            spread = f", mean {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if values[1:] else ""
            print(f"{detector} {category} seed {seed}: {metric} {values[-1]:.4f}{spread}", flush=True)
    for number, metric in TABLES.items():
        rows = {
            f"{detector} ({given.preset}, {len(given.seed)} seeds)": {key: statistics.mean(row[key]) for key in row}
            for (of, detector), row in figures.items()
            if of == metric
        }
        print(f"\n{paper_table(number, rows).text()}")
    return int(failed > 0)


def cell(given, detector, category, asked):
    """Train, export and evaluate one cell, unless its result is there; return its figures."""
    name = f"{detector}-{category}-{asked['seed']}"
    path = given.work / "cells" / f"{name}.json"
    if path.exists() and (kept := json.loads(path.read_text()))["asked"] == asked:
        return kept
    run, options = given.work / "runs" / name, TrainOptions(seed=asked["seed"], device=given.device)
    settings, preset = asked["settings"], asked["preset"]
    trained = train_detector(
        detector, given.data, category=category, settings=settings, preset=preset, out=run, options=options
    )
    bundle = export_bundle(run, given.work / "bundles" / f"{name}.bundle")
    (item,) = evaluate([bundle.path], EvaluationRequest(data=given.data, category=category, engine=given.engine)).items
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"asked": asked, "fit": trained.record.fit, **{m: item.accuracy.value(m) for m in TABLES.values()}}
    write_json(path, result)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for folder in ("data", "work"):
        parser.add_argument(folder, type=Path)
    for option, default in (("detector", sorted(DETECTORS)), ("category", sorted(MVTEC_AD)), ("set", [])):
        parser.add_argument(f"--{option}", nargs="+", default=default)
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    for option, default in (("preset", "paper"), ("device", "cpu"), ("engine", "auto")):
        parser.add_argument(f"--{option}", default=default)
    sys.exit(main(parser.parse_args()))
