"""What the library costs, against its peers in the same run. `python -m benchmarks --quick` runs all."""
