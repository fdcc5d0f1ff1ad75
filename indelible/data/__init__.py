"""Text to windows: tokenizer, held-out split, token store, leak check; and the ledger of which window is seen when.

Documents of `corpora` come in; a folder of token shards with a manifest goes out, and windows are read from it.
May import: study, corpora, models.
"""
