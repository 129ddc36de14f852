import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lineproof.bundle.atomic import replace_directory
from lineproof.bundle.lock import LOCK, exclusive
from lineproof.core.errors import BusyError

HOLD = """
import sys, time
from pathlib import Path
from lineproof.bundle.lock import exclusive
with exclusive(Path(sys.argv[1]), what="a test"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.usefixtures("holder")
def test_a_second_process_is_refused_at_once(tmp_path):
    words = r"in use by another process or thread: a change needs it alone"
    with pytest.raises(BusyError, match=words), exclusive(tmp_path, what="a change"):
        pytest.fail("the lock was given twice")


def test_a_kill_releases_the_lock(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with exclusive(tmp_path, what="a change"):
        assert (tmp_path / LOCK).exists()


def test_two_threads_are_kept_apart(tmp_path):
    with exclusive(tmp_path, what="the first"), pytest.raises(BusyError), exclusive(tmp_path, what="the second"):
        pytest.fail("the lock was given twice")
    with exclusive(tmp_path, what="the third"):
        pass


def test_who_waits_gets_it_when_the_other_ends(tmp_path):
    order = []

    def hold():
        with exclusive(tmp_path, what="the first"):
            order.append("first")
            started.set()
            time.sleep(0.2)
            order.append("first ends")

    started = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()
    with exclusive(tmp_path, what="the second", wait_s=10):
        order.append("second")
    thread.join()
    assert order == ["first", "first ends", "second"]


def test_the_lock_of_an_exchanged_folder_is_the_new_ones(tmp_path):
    """Who waited for the lock of a folder that was replaced meanwhile must not believe to hold the new one."""
    folder, new = tmp_path / "folder", tmp_path / "new"
    folder.mkdir()
    new.mkdir()
    entered = threading.Event()

    def wait_and_enter():
        with exclusive(folder, what="the second", wait_s=10):
            entered.set()

    with exclusive(folder, what="the first"):
        waiting = threading.Thread(target=wait_and_enter)
        waiting.start()
        time.sleep(0.1)
        # Held before it takes its place, so that it is not the one who waits that gets it first.
        keep_new = exclusive(new, what="the third")
        keep_new.__enter__()
        replace_directory(new, folder)
    assert not entered.wait(0.3)
    keep_new.__exit__(None, None, None)
    waiting.join()
    assert entered.is_set()
