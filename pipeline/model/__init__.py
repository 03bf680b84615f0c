"""The model room: jina-embeddings-v4 on torch. It knows neither Ray nor storage.

`checkpoint` reads the official files, `layout` knows their names, `processor` and `images` turn
items into token ids and pixels on a CPU, `backbone` is the network with one adapter merged,
`packing` and `pooling` go round it, `embedder` is the door.
"""
