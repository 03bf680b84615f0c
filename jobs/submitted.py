"""What a cluster runs of a job that was submitted: the command, once its Python was found fit.

Nothing of ours is imported before that but what says it, since an import may be what fails.
"""

import os
import sys
from typing import NoReturn

from pipeline.software import unmet


def main(arguments: list[str]) -> NoReturn:
    """Run a command here, on Ray's cluster, and end this process with its exit code.

    Args:
        arguments: as they are typed, without the address, which Ray's Jobs API tells.
    """
    missing = unmet()
    if missing:
        print(
            f"nightjar: the cluster's Python will not do: Nightjar needs {'; '.join(missing)}",
            file=sys.stderr,
        )
        sys.exit(2)
    from jobs.cli import leave
    from jobs.cli import main as run

    # an evaluation is done by one process
    where = [] if arguments[0] == "evaluate" else ["--address", os.environ["RAY_ADDRESS"]]
    leave(run([*arguments, *where]))


if __name__ == "__main__":
    main(sys.argv[1:])
