"""What can be said and done about a rule as such: tested, analysed, handed to others."""

from .export import export

__all__ = ["export"]
