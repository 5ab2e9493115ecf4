"""Rows seen as evaluations: a task under one setting and one set-up, with its models, its floors, and pooled points."""

from results.report.evaluations.evaluation import Exam as Exam
from results.report.evaluations.grouping import everyone as everyone
from results.report.evaluations.grouping import exams as exams
from results.report.evaluations.model import Model as Model
from results.report.evaluations.pooling import ASKED as ASKED
from results.report.evaluations.pooling import Point as Point
