"""One package per kind of problem, each with its wiring (pipeline.py) and its stages (nodes.py)."""
