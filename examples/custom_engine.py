"""An engine of your own, without an edit of the package: ONNX's reference evaluator judges parts.

Install:  pip install '.[cpu]' onnx
Run:      python examples/custom_engine.py BUNDLE
Prints:   whether the engine can run here, how its answers compare with the bundle's golden ones, and a verdict.

``ENGINES`` is a plain dictionary of strings, so that a program may add to it, as is done below. The command
``lineproof`` is another program: it does not know the entry. An engine that it should know belongs in the package.
"""

import sys

from lineproof import open_line
from lineproof.bundle.store import open_bundle
from lineproof.eval.parity.verify import verify
from lineproof.runtime.base import AbstractEngine
from lineproof.runtime.engine import ENGINES, Availability


class ReferenceEvaluator(AbstractEngine):
    """Runs every operator by NumPy: slow, exact, and easy to step through in a debugger."""

    name = "onnx-reference"
    precisions = ("fp32", "fp16")

    @classmethod
    def availability(cls):
        """Say what was looked for, what was found, and the one command that fixes it."""
        try:
            import onnx  # inside the method: a missing package is an answer, not an error
        except ImportError as error:
            return Availability(
                name=cls.name, is_available=False, looked_for="the package onnx", found=str(error),
                fix="pip install onnx",
            )  # fmt: skip
        version = f"onnx {onnx.__version__}"
        return Availability(name=cls.name, is_available=True, looked_for="the package onnx", found=version, fix="")

    def _open(self):
        from onnx.reference import ReferenceEvaluator as Evaluator

        self._evaluator = Evaluator(str(self._bundle.model_path))
        # The graph must have the inputs and outputs that the manifest names.
        self._check_interface(self._evaluator.input_names, self._evaluator.output_names)
        self._names = [spec.name for spec in self._bundle.manifest.outputs]

    def _upload(self, frames):
        self._frames = frames.copy()

    def _execute(self):
        self._results = self._evaluator.run(self._names, {self._bundle.manifest.inputs[0].name: self._frames})

    def _download(self):
        score, anomaly_map = (result.copy() for result in self._results)
        return score, anomaly_map

    def _describe(self):
        import onnx

        return {"library": "onnx", "library_version": onnx.__version__, "device": "CPU", "num_threads": 1,
                "arithmetic": "as written in the graph"}  # fmt: skip


ENGINES[ReferenceEvaluator.name] = f"{__name__}:ReferenceEvaluator"

if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
    state = ReferenceEvaluator.availability()
    print(f"{state.name}: {'can' if state.is_available else 'cannot'} run here ({state.found})")
    report = verify(open_bundle(path), engine=ReferenceEvaluator.name)
    print(f"parity {report.state} on {report.num_golden} golden frames")
    with open_line(path, engine=ReferenceEvaluator.name) as line:
        verdict = line.inspect(line.bundle.golden().frames[0])
    print(f"the first golden frame is {verdict.verdict}: score {verdict.score:.4f}, threshold {verdict.threshold:.4f}")
