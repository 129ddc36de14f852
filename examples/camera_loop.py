"""A camera in front of a line: one thread takes frames, one judges them, and a bounded queue stands between.

Install:  pip install '.[cpu]'      (in a checkout; no PyTorch)
Run:      python examples/camera_loop.py BUNDLE [FRAMES]      Ctrl-C stops it.
Prints:   OK, NG or ERR for each frame, and at the end how many of each there were.

ERR is a frame that got no verdict: a part that was not judged must never count as good. Here every tenth frame has the
wrong size, as after a change of the camera's settings. A frame that comes while the queue is full is ERR as well.

The camera here is a fake that shows the bundle's golden frames. Yours replaces ``watch``.
"""

import queue
import signal
import sys
import threading
from collections import Counter

from lineproof import open_line
from lineproof.core.errors import LineproofError

QUEUE_FRAMES = 4
FRAMES_PER_S = 50


def watch(frames, num_frames, waiting, late, stop):
    """The fake camera: puts (number, frame) into the queue at its own pace until the end, or until it is stopped."""
    for number in range(num_frames):
        if stop.wait(1 / FRAMES_PER_S):
            return
        frame = frames[number % len(frames)]
        if number % 10 == 9:
            frame = frame[:-1]
        try:
            waiting.put_nowait((number, frame))
        except queue.Full:  # a camera does not wait
            late.append(number)


def judge(line, number, frame):
    """Judge one frame, print the verdict with its score and time, and return OK, NG or ERR."""
    try:
        verdict = line.inspect(frame)
    except LineproofError as error:
        print(f"{number:5d} ERR {error}")
        return "ERR"
    print(f"{number:5d} {verdict.verdict}  {verdict.score:.4f}  {verdict.time_ns / 1e6:.2f} ms")
    return verdict.verdict


def main(bundle, num_frames):
    """Inspect until the camera ends or Ctrl-C; every frame that was taken gets an answer."""
    waiting, late, stop, counted = queue.Queue(maxsize=QUEUE_FRAMES), [], threading.Event(), Counter()
    # Not KeyboardInterrupt, which could fall between a frame and its answer: stop the camera, and judge what it took.
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    with open_line(bundle, engine="auto") as line:
        camera = threading.Thread(target=watch, args=(line.bundle.golden().frames, num_frames, waiting, late, stop))
        camera.start()
        try:
            while camera.is_alive() or not waiting.empty():
                try:
                    number, frame = waiting.get(timeout=0.1)
                except queue.Empty:
                    continue
                counted[judge(line, number, frame)] += 1
        finally:  # whatever happened, the camera must not go on alone
            is_stopped = stop.is_set()
            stop.set()
            camera.join()
    for number in late:
        print(f"{number:5d} ERR not judged: the queue was full")
    counted["ERR"] += len(late)
    words = ", ".join(f"{counted[answer]} {answer}" for answer in ("OK", "NG", "ERR"))
    print(f"{'stopped by Ctrl-C after' if is_stopped else 'judged'} {counted.total()} frames: {words}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100)
