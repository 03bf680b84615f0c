"""The benchmark room: how fast a device embeds, against what that very device can do.

`ceilings` measures the device, `flops` counts the model's arithmetic, `mixes` are the inputs,
`measure` runs the engine over them, `chart` draws the result. It knows torch and the model room,
and neither Ray nor storage.
"""
