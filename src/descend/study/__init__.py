"""What can be said and done about a rule as such: tested, analysed, handed to others."""

from .analyse import Analysis, analyse
from .check_subject import Finding
from .checking import Check, check
from .export import export

__all__ = ["Analysis", "Check", "Finding", "analyse", "check", "export"]
