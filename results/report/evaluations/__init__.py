"""Rows seen as evaluations: a task under one setting and one set-up, with models, trivial baselines and pooled points."""

from results.report.evaluations.evaluation import Evaluation as Evaluation
from results.report.evaluations.grouping import everyone as everyone
from results.report.evaluations.grouping import grouped as grouped
from results.report.evaluations.model import Model as Model
from results.report.evaluations.pooling import ASKED as ASKED
from results.report.evaluations.pooling import Point as Point
