"""How much of a capability a given checkpoint keeps through later fine-tuning: battery, read-outs, card.

A battery is an ordinary study of many fine-tunes of the checkpoint. Everything else here reads what it has left, at
equal gain on the new task, and says what may be concluded: durable, not durable, cannot tell.
"""
