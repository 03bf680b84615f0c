"""What each command calls, with what was typed for it.

Imported when it is called, so that `nightjar show` does not wait for torch, and a mistake in a spec
is told at once.
"""

from jobs.commands import clusters, datasets, models, runs, stores
from jobs.commands.kinds import Command

COMMANDS: dict[str, Command] = {
    **runs.COMMANDS,
    **datasets.COMMANDS,
    **stores.COMMANDS,
    **models.COMMANDS,
    **clusters.COMMANDS,
}
