"""Exit statuses. Every error of a command becomes a message on stderr, with --json also an object on stdout."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import typer
from typer.core import TyperGroup

from ..core.errors import LineproofError, StoppedError
from ..core.os_errors import os_error_words
from ..host.extras import extra_of, install
from ._streams import drop_stdout, prepared_streams

#: What a shell gives a command whose reader went away (128 + SIGPIPE).
PIPE_CLOSED = 141
# typer carries a click of its own in newer versions: its errors are found by what typer itself exports.
_ClickError = cast(
    type[typer.BadParameter], next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
)
_KNOWN = (LineproofError, OSError, ImportError, MemoryError, KeyboardInterrupt, RuntimeError, typer.Abort, _ClickError)
_LESS_MEMORY = "Give it a smaller batch, image size or network, or close other programs."
_NOTHING_CHANGED = "Nothing that was there before has changed"
_KEPT = {
    "run": "What was judged is printed, and filed where --out was given; --append --skip-judged goes on with the rest",
    "demo": "What its folder holds is kept; the same command goes on there",
    "sample": "The images written so far are kept; the same command writes them all",
}


class PipeClosedError(Exception):
    """The reader of stdout went away, as ``head`` does after its last line."""


@dataclass(frozen=True)
class Failure:
    """Error that a command ended with.

    Attributes:
        message: one sentence or several: what was seen, what was expected, what to do.
        kind: name of the error's class.
        status: exit status.
    """

    message: str
    kind: str
    status: int

    def to_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {"error": self.message, "kind": self.kind, "status": self.status}


class Commands(TyperGroup):
    """The group of commands. It turns Ctrl-C and a closed stdout into errors of ours before typer handles them."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise StoppedError(stopped_words()) from error
        except BrokenPipeError as error:
            raise PipeClosedError from error
        except _ClickError as error:
            error.message += _repeat_words(error)
            raise


def _repeat_words(error: Any) -> str:
    """Advice where words were left over and an option was given that takes one value each time; else ""."""
    if not error.message.startswith("Got unexpected extra argument") or error.ctx is None:
        return ""
    given = [
        max(option.opts, key=len)
        for option in error.ctx.command.params
        if getattr(option, "multiple", False) and error.ctx.params.get(option.name)
    ]
    return "".join(f". {name} takes one value: repeat it for each, {name} A {name} B" for name in given)


def run_app(app: Callable[..., Any]) -> None:
    """Run a command-line application and exit.

    Raises:
        SystemExit: 0 done, 1 error, 2 usage, 3 environment missing, 4 parity failed or undecided, 5 deadline missed,
            130 stopped by Ctrl-C, 141 the reader of stdout went away.
    """
    with prepared_streams() as out:
        try:
            status = app(standalone_mode=False)
            sys.stdout.flush()
        except (PipeClosedError, BrokenPipeError):
            drop_stdout()
            status = PIPE_CLOSED
        except _KNOWN as error:
            failure = failure_of(error, has_result=out.has_text)
            if failure is None:
                _print_object(_mistake(error), has_result=out.has_text)
                raise
            status = _report(error, failure, has_result=out.has_text)
        except BaseException as error:
            if not isinstance(error, SystemExit):
                _print_object(_mistake(error), has_result=out.has_text)
            raise
    sys.exit(status if isinstance(status, int) else 0)


def _mistake(error: BaseException) -> Failure:
    return Failure(str(error), type(error).__name__, 1)


def failure_of(error: BaseException, *, has_result: bool = False) -> Failure | None:
    """Message and exit status of an error; None for a bug of lineproof's own, which is shown with its traceback.

    Args:
        error: error that a command raised.
        has_result: whether the command had printed its result, or a part of it, before.
    """
    so_far = "What is printed is complete up to here." if has_result else "It stopped before there was a result."
    if isinstance(error, LineproofError):
        return Failure(str(error), type(error).__name__, error.exit_status)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure(stopped_words(), StoppedError.__name__, StoppedError.exit_status)
    if isinstance(error, ModuleNotFoundError):
        return Failure(_missing_words(error.name or str(error)), "EnvironmentMissingError", 3)
    if isinstance(error, ImportError):
        words = f"{error.name or 'A package'} cannot be loaded ({error}). `lineproof doctor` says what works here."
        return Failure(words, "EnvironmentMissingError", 3)
    if isinstance(error, OSError):
        return Failure(f"{os_error_words(error, place='standard output')} {so_far}", type(error).__name__, 1)
    if is_out_of_memory(error):
        seen = f" ({error})" if str(error) else ""
        return Failure(f"Out of memory{seen}. {_LESS_MEMORY} {so_far}", "MemoryError", 1)
    if isinstance(error, _ClickError):
        return Failure(error.format_message(), "UsageError", error.exit_code)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out. PyTorch's own errors are known by their names and messages."""
    words = ("can't allocate memory", "CUDA out of memory", "Failed to allocate memory", "bad allocation")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(item in str(error) for item in words))
    )


def stopped_words() -> str:
    """Message for Ctrl-C: what the command leaves behind, and the command that goes on from there."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return f"Stopped by Ctrl-C before its end. {_KEPT.get(command, _NOTHING_CHANGED)}."


def _missing_words(module: str) -> str:
    extra = extra_of(module)
    fix = f"Install it with what goes with it: {install(extra)}." if extra else "Install it with pip."
    return f"The package {module} is missing. {fix} `lineproof doctor` says what works here."


def _report(error: BaseException, failure: Failure, *, has_result: bool) -> int:
    if isinstance(error, OSError) and error.filename is None:
        drop_stdout()
    if _is_asked("-v", "--verbose"):
        sys.excepthook(type(error), error, error.__traceback__)
    _print_object(failure, has_result=has_result)
    if isinstance(error, _ClickError):
        error.show()
    else:
        print(f"error: {failure.message}", file=sys.stderr)  # noqa: T201
    return failure.status


def _print_object(failure: Failure, *, has_result: bool) -> None:
    """With --json stdout holds one object: the result, or the error where there is no result."""
    if not _is_asked("--json") or has_result:
        return
    try:
        print(json.dumps(failure.to_dict(), indent=2), flush=True)  # noqa: T201
    except OSError:
        drop_stdout()


def _is_asked(*flags: str) -> bool:
    """Whether one of the flags stands on the command line; a short one may stand among others, as in ``-qv``."""
    words = sys.argv[1:]
    words = words[: words.index("--")] if "--" in words else words
    short = "".join(flag[1] for flag in flags if len(flag) == 2)
    return any(word in flags or (short and re.fullmatch(rf"-[a-z]*[{short}][a-z]*", word)) for word in words)
