"""The training room: pairs in, a checkpoint in the official layout out.

The recipe is that of jina-embeddings-v4 (arXiv 2506.18902, section 4), in two stages: pair training
of the backbone and both heads, then one LoRA adapter for each task on the frozen backbone. The room
imports the ground floor and the model room, torch and peft.
"""
