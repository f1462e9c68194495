"""How good predictions are: metrics, calibration and intervals. NumPy only."""

from koser.evaluation.calibration import expected_calibration_error, negative_log_likelihood
from koser.evaluation.diarization import DiarizationError, emotion_diarization_error
from koser.evaluation.folds import (
    FoldScore,
    FoldSummary,
    MeanAndSd,
    mean_and_sd,
    summarise_folds,
)
from koser.evaluation.gap import Gap, Side, evaluate_gap
from koser.evaluation.metrics import (
    accuracy,
    confusion_matrix,
    macro_f1,
    recall_per_class,
    unweighted_average_recall,
)
from koser.evaluation.scoring import Evaluation, Score, evaluate, majority_accuracy

__all__ = [
    "DiarizationError",
    "Evaluation",
    "FoldScore",
    "FoldSummary",
    "Gap",
    "MeanAndSd",
    "Score",
    "Side",
    "accuracy",
    "confusion_matrix",
    "emotion_diarization_error",
    "evaluate",
    "evaluate_gap",
    "expected_calibration_error",
    "macro_f1",
    "majority_accuracy",
    "mean_and_sd",
    "negative_log_likelihood",
    "recall_per_class",
    "summarise_folds",
    "unweighted_average_recall",
]
