"""The inspector: storages compared with the catalog in both directions, and what is done then.

`scan` only looks, and writes down what it finds; `findings` are those rows; `settle` acts on them.
"""
