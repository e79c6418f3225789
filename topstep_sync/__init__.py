"""A synchronous, thread-based client for the ProjectX Gateway API that TopstepX traders use."""

__version__ = "0.1.0"

__all__: list[str] = []
