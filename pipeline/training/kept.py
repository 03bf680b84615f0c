"""Kept: where a training is, so that a killed one goes on; in safetensors and JSON, never pickled.

    <output>.training/step-000400/weights.safetensors     what learns
                                  moments.safetensors     what AdamW remembers of it
                                  state.json              the step, and of which spec it is; last

A state is written beside the last one and renamed; then older ones go. What learns is float32 and
the generator of each step is seeded by its number, so a training that goes on gives the same bits
as one that was never stopped (on one device, with as many threads).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.errors import SpecError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The states of one training."""

    folder: Path
    """Where they are."""
    identity: Mapping[str, object]
    """What makes a training another one: its spec, and the weights it began from."""

    def save(
        self, step: int, learning: Sequence[tuple[str, nn.Parameter]], adamw: Optimizer
    ) -> None:
        """Keep the state after so many steps."""
        target = self.folder / f"step-{step:06}"
        made = self.folder / f".step-{step:06}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        save_file(
            {name: p.detach().contiguous() for name, p in learning}, made / "weights.safetensors"
        )
        save_file(_moments(learning, adamw), made / "moments.safetensors")
        state = {"step": step, "identity": dict(self.identity)}
        (made / "state.json").write_text(json.dumps(state, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        for older in self.folder.glob("step-*"):
            if older != target:
                shutil.rmtree(older)

    def load(self, learning: Sequence[tuple[str, nn.Parameter]], adamw: Optimizer) -> int:
        """Take up the newest state; how many steps were done, 0 where there is none.

        Raises:
            SpecError: it is of another training.
        """
        states = sorted(self.folder.glob("step-*/state.json"))
        if not states:
            return 0
        found = json.loads(states[-1].read_text())
        if found["identity"] != json.loads(json.dumps(dict(self.identity))):
            raise SpecError(
                f"output.path: {str(self.folder)!r} holds the state of a training of another spec "
                "or from other weights; remove it, or name another output"
            )
        device = learning[0][1].device
        weights = load_file(states[-1].parent / "weights.safetensors", device=str(device))
        moments = load_file(states[-1].parent / "moments.safetensors", device=str(device))
        with torch.no_grad():
            for name, parameter in learning:
                parameter.copy_(weights[name])
                if f"{name}/{_MOMENTS[0]}" in moments:
                    adamw.state[parameter] = {
                        kind: moments[f"{name}/{kind}"].clone() for kind in _MOMENTS
                    }
        return int(found["step"])

    def remove(self) -> None:
        """Forget all: the training is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _moments(learning: Sequence[tuple[str, nn.Parameter]], adamw: Optimizer) -> dict[str, Tensor]:
    """Of what has had a gradient: among texts alone, nothing of the vision tower."""
    return {
        f"{name}/{kind}": adamw.state[parameter][kind].contiguous()
        for name, parameter in learning
        if parameter in adamw.state
        for kind in _MOMENTS
    }
