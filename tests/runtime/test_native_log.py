"""What C++ prints is caught and given back."""

import os

import pytest

from lineproof.runtime.native_log import NativeLog, caught_stderr


def test_catches_the_descriptor_and_gives_it_back(capfd):
    with caught_stderr() as log:
        os.write(2, b"\x1b[1;31m2026-11-24 07:53:15.014954545 [E:onnxruntime] Failed to load\n libcublas.so\x1b[m")
    assert log.words() == "[E:onnxruntime] Failed to load libcublas.so"
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_gives_the_descriptor_back_after_an_error(capfd):
    def fail():
        with caught_stderr():
            os.write(2, b"words")
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_words_are_cut():
    log = NativeLog()
    log.text = "word " * 1000
    assert len(log.words()) == 901
    assert log.words().endswith("…")
