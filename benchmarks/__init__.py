"""torchloom beside the plain PyTorch of textbooks, measured in one run: `uv run python -m benchmarks --help`.

Each part is a module with a function `run`. `plain.py` and `plain_mnist.py` hold the textbook's side, `ours.py` calls
torchloom, `measure.py` takes turns and reports, `inputs.py` finds the data.
"""
