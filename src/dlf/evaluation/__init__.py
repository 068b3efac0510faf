"""How good images are at what size, beside other codecs at the same number of bytes."""

from dlf.evaluation.experiment import Evaluation, EvaluationRequest, evaluate, prepare
from dlf.evaluation.report.tables import summary
from dlf.evaluation.report.writer import ReportOptions, write_report
from dlf.evaluation.results import Results

__all__ = [
    "Evaluation",
    "EvaluationRequest",
    "ReportOptions",
    "Results",
    "evaluate",
    "prepare",
    "summary",
    "write_report",
]
