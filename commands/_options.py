"""Options that several commands share, each written once; the commands name them as the types of their parameters."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

BundleArgument = Annotated[Path | None, Argument(help="Bundle; the newest *.bundle here where left out.")]
Category = Annotated[str | None, Option(help="Category of the data set.")]
EngineName = Annotated[
    str, Option(help="Engine, or auto: a proved one, else the first that works; `lineproof doctor` lists them.")
]
ExpectedPrecision = Annotated[str | None, Option("--precision", help="Refuse a bundle of another precision.")]
MaxFalseReject = Annotated[str, Option(help="Share of good parts that may be rejected: 1% or 0.01.")]
TestData = Annotated[Path | None, Option("--data", help="Data set whose test images are run.")]
OwnCategory = Annotated[str | None, Option("--category", help="Category; the bundle's own where left out.")]
FitRule = Annotated[str | None, Option("--fit", help="How images of another size become frames: stretch, pad or crop.")]
OtherData = Annotated[
    bool, Option("--other-data", help="Accept a data set of another name than the bundle was trained on.")
]
BatchSize = Annotated[int, Option("--batch", help="Frames per call.")]
OtherThreshold = Annotated[float | None, Option("--threshold", help="Judge by this one instead of the bundle's.")]
Corrections = Annotated[Path | None, Option("--corrections", help="JSON of labels and masks to replace or ignore.")]
FprLimit = Annotated[float, Option("--fpr-limit", help="End of the AUPRO integral.")]
Record = Annotated[Path | None, Option("--record", help="Keep the report in this folder, not in the bundle.")]
AcceptUndecided = Annotated[bool, Option("--accept-undecided", help="Exit 0 although too many frames are ties.")]
Who = Annotated[str | None, Option("--who", help="Who does it, for the bundle's history; your login where left out.")]
ResolutionName = Annotated[str, Option("--resolution", help="image (MVTec's protocol: maps enlarged), or map.")]
MinUsed = Annotated[str, Option("--min-used", help="Share of the images that must be usable: 90% or 0.9.")]
ReportPage = Annotated[Path | None, Option("--report", help="Write the result as an HTML page as well.")]

# Of every command.
AsJson = Annotated[bool, Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress on stderr.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Show the traceback of an error.")]

# Of every command that opens an engine.
Device = Annotated[int, Option("--device", help="Index of the GPU.")]
Threads = Annotated[int, Option("--threads", help="Threads of a CPU engine; 0 for its own default.")]
ComputeDtype = Annotated[str, Option("--compute-dtype", help="f32, or bf16 (openvino only, and only when asked).")]
AllowFallback = Annotated[bool, Option("--allow-fallback", help="Accept a device other than asked.")]
