"""How good predictions are, and how sure that is. NumPy only.

What to use for what: scores with intervals, `evaluate`; two systems on the same utterances,
`compare_systems`; two protocols, `evaluate_gap`; subgroups, `evaluate_subgroups`; raters,
`evaluate_agreement`, `human_ceiling` and, against their distributions, `evaluate_distributions`;
valence and arousal, `evaluate_values`; probabilities, `choose_temperature` and
`reliability_bins`; answering only when sure, `risk_coverage`.
"""

from koser.evaluation.agreement import (
    evaluate_agreement,
    fleiss_kappa,
    human_ceiling,
    krippendorff_alpha,
)
from koser.evaluation.calibration import (
    adaptive_calibration_error,
    apply_temperature,
    expected_calibration_error,
    negative_log_likelihood,
)
from koser.evaluation.comparison import Comparison, adjusted, compare_all, compare_systems
from koser.evaluation.diarization import DiarizationError, emotion_diarization_error
from koser.evaluation.dimensions import concordance_correlation, evaluate_values
from koser.evaluation.distributions import evaluate_distributions
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
from koser.evaluation.pairing import Answers
from koser.evaluation.reliability import reliability_bins
from koser.evaluation.scoring import Evaluation, Score, evaluate, majority_accuracy
from koser.evaluation.selective import evaluate_selection, risk_coverage
from koser.evaluation.significance import holm, mcnemar, permutation_test
from koser.evaluation.subgroups import evaluate_subgroups
from koser.evaluation.temperature import choose_temperature, fit_temperature

__all__ = [
    "Answers",
    "Comparison",
    "DiarizationError",
    "Evaluation",
    "FoldScore",
    "FoldSummary",
    "Gap",
    "MeanAndSd",
    "Score",
    "Side",
    "accuracy",
    "adaptive_calibration_error",
    "adjusted",
    "apply_temperature",
    "choose_temperature",
    "compare_all",
    "compare_systems",
    "concordance_correlation",
    "confusion_matrix",
    "emotion_diarization_error",
    "evaluate",
    "evaluate_agreement",
    "evaluate_distributions",
    "evaluate_gap",
    "evaluate_selection",
    "evaluate_subgroups",
    "evaluate_values",
    "expected_calibration_error",
    "fit_temperature",
    "fleiss_kappa",
    "holm",
    "human_ceiling",
    "krippendorff_alpha",
    "macro_f1",
    "majority_accuracy",
    "mcnemar",
    "mean_and_sd",
    "negative_log_likelihood",
    "permutation_test",
    "recall_per_class",
    "reliability_bins",
    "risk_coverage",
    "summarise_folds",
    "unweighted_average_recall",
]
