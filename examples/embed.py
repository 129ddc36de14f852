"""lineproof in a program of your own: images in, verdicts out.

Install:  pip install '.[cpu]'      (in a checkout; no PyTorch)
Run:      python examples/embed.py BUNDLE IMAGE [IMAGE ...]
Prints:   warnings on stderr, then one line per image: OK or NG, score, threshold, and where the anomaly map is highest.
          The exit status is 1 where a part was rejected.
"""

import sys

import numpy as np

from lineproof import open_line
from lineproof.data.decoding.decode import decode_image


def main(bundle: str, images: list[str]) -> int:
    """Inspect image files; 1 where one of them is NG, else 0."""
    num_rejected = 0
    # Opening takes seconds: do it once, when your program starts. In production, say require_proof=True.
    with open_line(bundle, engine="auto") as line:
        for sentence in line.warnings():
            print(f"warning: {sentence}", file=sys.stderr)
        for image in images:
            frame = decode_image(image)  # uint8 (H, W, 3) RGB; a camera's frame goes in as it is
            verdict = line.inspect(frame)
            row, column = np.unravel_index(verdict.anomaly_map.argmax(), verdict.anomaly_map.shape)
            height, width = verdict.anomaly_map.shape
            place = f"{100 * row / height:.0f} % down, {100 * column / width:.0f} % across"
            print(f"{verdict.verdict} {verdict.score:.4f} (threshold {verdict.threshold:.4f}) {place}  {image}")
            num_rejected += verdict.verdict == "NG"
    return int(num_rejected > 0)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
