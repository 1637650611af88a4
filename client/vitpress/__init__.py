"""vitpress: client of the compression queue, and the loader of what it makes."""

from vitpress.artifact import ArtifactError, load
from vitpress.plan import Plan

__all__ = ["ArtifactError", "Plan", "load"]
