"""What a training's val part says of how far the model can be believed.

The temperature is fitted on val when the best weights are in place: val chose the epoch, and test
has had no say. The thresholds for answering only when sure come from the same part, after
the temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from koser.evaluation.calibration import apply_temperature
from koser.evaluation.selective import Threshold, choose_thresholds
from koser.evaluation.temperature import Temperature, choose_temperature


@dataclass(frozen=True, eq=False)
class ValPart:
    """A model's answers to its val part.

    Attributes
    ----------
    temperature : Temperature
        Fitted on them, or 1 and why.
    confidences : np.ndarray [shape=(n_val,)]
        Probabilities of the answers, after the temperature.
    is_right : np.ndarray [shape=(n_val,), dtype=bool]
        Whether each is right.
    """

    temperature: Temperature
    confidences: np.ndarray
    is_right: np.ndarray

    @classmethod
    def of(
        cls, true_ids: np.ndarray, probabilities: np.ndarray, shares: np.ndarray | None = None
    ) -> ValPart:
        """Fit a temperature if there is enough to fit it on.

        Parameters
        ----------
        true_ids : np.ndarray [shape=(n_val,)]
            Column of each reference label.
        probabilities : np.ndarray [shape=(n_val, n_labels)]
            Of the trained model, before any temperature.
        shares : np.ndarray [shape=(n_val, n_labels)], optional
            The raters' distribution, where it is what the model was trained on: the
            temperature should not make it surer than they are.
        """
        temperature = choose_temperature(true_ids, probabilities, shares=shares)
        calibrated = apply_temperature(probabilities, temperature.value)
        return cls(temperature, calibrated.max(axis=1), calibrated.argmax(axis=1) == true_ids)

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """From which confidence on to answer, for several wanted coverages and risks."""
        return choose_thresholds(self.confidences, self.is_right)

    def describe(self) -> dict[str, Any]:  # Any: what JSON can hold
        """What a checkpoint tells of its calibration; nothing of it is needed to predict."""
        return {
            "temperature": asdict(self.temperature),
            "thresholds": [asdict(threshold) for threshold in self.thresholds],
        }

    def to_values(self) -> dict[str, Any]:  # Any: tensors and plain values
        """As an outcome's file holds it."""
        return {
            "temperature": asdict(self.temperature),
            "confidences": torch.from_numpy(self.confidences),
            "is_right": torch.from_numpy(self.is_right),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ValPart:
        """Read what `to_values` made."""
        return cls(
            Temperature(**values["temperature"]),
            values["confidences"].numpy(),
            values["is_right"].numpy(),
        )
