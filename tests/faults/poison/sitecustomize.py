"""Python imports this at its start where the folder is on its path: then some rows kill.

A text with the word POISON kills the process that prepares it, a text that is cut kills the one
that embeds it, as a crash in a library's C code would: without an exception. A text with the word
ENDLESS is prepared for ever, one with HUNGRY asks for all memory. A shard with the word POISON in
its name kills the process that reads it.
"""

import os
import signal

from benchmarks.patched import after_import


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _poison_processor(module):
    original = module.Processor.text

    def text(self, content, *arguments):
        if "POISON" in content:
            _die()
        while "ENDLESS" in content:
            pass
        if "HUNGRY" in content:
            bytearray(1 << 40)
        return original(self, content, *arguments)

    module.Processor.text = text


def _poison_engine(module):
    original = module.Engine.embed

    def embed(self, items, **settings):
        if any(item.truncated for item in items):
            _die()
        return original(self, items, **settings)

    module.Engine.embed = embed


def _poison_recipe(module):
    original = module.Recipe.read

    def read(self, units):
        if "POISON" in units[0].segment.shard.uri:
            _die()
        return original(self, units)

    module.Recipe.read = read


after_import(
    {
        "pipeline.stages.recipe": _poison_recipe,
        "pipeline.model.processor": _poison_processor,
        "pipeline.model.engine": _poison_engine,
    }
)
