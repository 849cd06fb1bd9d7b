"""What a run showed: one self-contained HTML page, one picture, and result tables that carry their provenance."""

from engram.report.page import write
from engram.report.picture import figure
from engram.report.suite import write as write_suite
from engram.report.table import write_result

__all__ = ["figure", "write", "write_result", "write_suite"]
