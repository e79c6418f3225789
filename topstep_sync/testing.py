"""What tests of a trading program need: the simulator as a context manager and as a pytest fixture."""
