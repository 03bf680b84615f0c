"""The `nightjar` command.

Exit codes: 0 done, 1 the run failed, 2 the user's mistake.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from jobs.arguments import parser
from jobs.commands import COMMANDS
from jobs.interrupted import ending_softly
from jobs.printed import printed
from pipeline.credentials import redact
from pipeline.errors import NightjarError, UnexpectedError
from pipeline.stages.watchdog import still_at_work
from pipeline.stores import has_password


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    typed = sys.argv[1:] if arguments is None else arguments
    if any(map(has_password, typed)):
        # before anything is parsed: whoever refuses an argument shows it
        _tell(
            "nightjar: there is a password in a URL; name it in the `storage` section of a spec "
            "instead, and that spec with --storage, or as store.secret of a vector store"
        )
        return 2
    parsed = parser().parse_args(typed)
    # Ray reads it when it is imported: a thread that is still at work when a command has let go of
    # Ray is not to connect anew
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        with ending_softly():
            COMMANDS[parsed.command](parsed)
    except NightjarError as error:
        _tell(f"nightjar: {error}", *getattr(error, "__notes__", ()))
        if isinstance(error, UnexpectedError) and error.__cause__ is not None:
            _tell(*traceback.format_exception(error.__cause__))
        return error.exit_code
    except OSError as error:
        # a disk or an object store that refused; BrokenPipeError is the reader of our output
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
            return 0
        _tell(f"nightjar: {error}")
        return 1
    except KeyboardInterrupt:
        _tell(
            "nightjar: interrupted; nothing was committed; the same command goes on from "
            "what is kept"
        )
        return 1
    except Exception as error:
        # a bug: shown whole, as Python would, but for what is secret
        _tell(*traceback.format_exception(error))
        return 1
    return 0


def program() -> NoReturn:
    """`nightjar` as a process of its own."""
    leave(main())


def leave(code: int) -> NoReturn:
    """End this process.

    Python that is torn down while Ray's threads are at work crashes now and then, and the exit code
    is lost. So where a run that was given up goes on, nothing is torn down.
    """
    if still_at_work():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _tell(*lines: str) -> None:
    for line in redact("\n".join(line.rstrip("\n") for line in lines)).split("\n"):
        # sentences name ids, paths and columns, which are data
        print(printed(line), file=sys.stderr)


if __name__ == "__main__":
    program()
