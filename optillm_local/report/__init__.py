"""What people see of a run. Views and reports read events and results, and nothing else."""

from optillm_local.report.live import LiveView, PlainView
from optillm_local.report.result import result_panel, summary_lines, to_json

__all__ = ["LiveView", "PlainView", "result_panel", "summary_lines", "to_json"]
