"""Options that several commands share, each written once; the commands name them as the types of their parameters."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

BundleArgument = Annotated[
    Path | None, Argument(help="Bundle folder; the newest *.bundle in the current folder where left out.")
]
Category = Annotated[str | None, Option(help="Category of the data set (the kind of part), where it has several.")]
EngineName = Annotated[
    str,
    Option(
        help="Engine that computes; auto takes one whose verdicts are proved, else the preferred one that works here. "
        "`lineproof doctor` lists the engines."
    ),
]
ExpectedPrecision = Annotated[
    str | None, Option("--precision", help="Refuse a bundle whose graph is not in this precision: fp32 or fp16.")
]
MaxFalseReject = Annotated[str, Option(help="Largest share of good parts that the threshold may reject: 1% or 0.01.")]
TestData = Annotated[
    Path | None, Option("--data", help="Data set whose test images are judged; docs/data.md lists the layouts.")
]
OwnCategory = Annotated[
    str | None, Option("--category", help="Category of the data set; the bundle's own where left out.")
]
TrainingFrame = Annotated[
    str | None,
    Option("--frame", help="Size of the frames in pixels: HEIGHTxWIDTH; taken from the images where left out."),
]
BitDepth = Annotated[
    int | None, Option("--bit-depth", help="Number of bits that the camera used in 16-bit images, such as 12.")
]
FitRule = Annotated[str | None, Option("--fit", help="How images of another size become frames: stretch, pad or crop.")]
TileSize = Annotated[
    str | None,
    Option("--tiles", help="Size of the tiles that large frames are cut into, in pixels of the frame: HEIGHTxWIDTH."),
]
Overlap = Annotated[
    int | None, Option("--overlap", help="Number of pixels that neighbouring tiles share; 0 where left out.")
]
OtherData = Annotated[
    bool, Option("--other-data", help="Accept a data set of another name than the one the bundle was trained on.")
]
BatchSize = Annotated[int, Option("--batch", help="Number of frames per call of the engine.")]
OtherThreshold = Annotated[
    float | None, Option("--threshold", help="Threshold to judge by instead of the bundle's, in units of the score.")
]
Corrections = Annotated[
    Path | None,
    Option(
        "--corrections", help="JSON file of labels and masks to replace and images to leave out (docs/badcases.md)."
    ),
]
FprLimit = Annotated[
    float, Option("--fpr-limit", help="Largest false-positive rate that the AUPRO integral goes to, up to 1.")
]
Record = Annotated[Path | None, Option("--record", help="Folder that gets the report instead of the bundle.")]
AcceptUndecided = Annotated[
    bool,
    Option(
        "--accept-undecided",
        help="Exit 0 and not 4 where too many scores lie too near the threshold to prove anything.",
    ),
]
Who = Annotated[
    str | None, Option("--who", help="Name that the bundle's history gives for this change; your login where left out.")
]
ResolutionName = Annotated[
    str,
    Option(
        "--resolution",
        help="Resolution at which pixels are compared with masks: image (MVTec's protocol: anomaly maps are enlarged), "
        "or map.",
    ),
]
MinUsed = Annotated[str, Option("--min-used", help="Smallest share of the images that must be usable: 90% or 0.9.")]
ViewName = Annotated[
    str | None,
    Option(
        "--view",
        help="What heat maps of scans are laid over: rgb, the default where the bundle reads colours, or depth.",
    ),
]
ReportPage = Annotated[Path | None, Option("--report", help="HTML file that shows the result as well.")]

# Of every command.
AsJson = Annotated[bool, Option("--json", help="Print one JSON object to stdout instead of lines.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Show no progress on stderr.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Show long lists in full, and the traceback of an error.")]

# Of every command that opens an engine.
Device = Annotated[int, Option("--device", help="Index of the GPU, in CUDA's order.")]
Threads = Annotated[int, Option("--threads", help="Number of threads of a CPU engine; 0 leaves its own default.")]
ComputeDtype = Annotated[
    str, Option("--compute-dtype", help="Arithmetic of the engine: f32, or bf16 (openvino only, where the CPU has it).")
]
AllowFallback = Annotated[
    bool, Option("--allow-fallback", help="Accept that the engine computes elsewhere than asked, such as on the CPU.")
]
