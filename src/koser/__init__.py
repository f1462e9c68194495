"""Korean speech emotion recognition that can be believed and deployed.

A trained model, in three lines::

    import koser
    recognizer = koser.load_recognizer("runs/mfcc_speaker_20261122-150000")
    print(recognizer.predict_file("call.wav").label)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# torch's oneDNN keeps what it compiled for each shape of its input, 1,024 of them: a gigabyte
# and more where every batch has another length. Read when torch first computes.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

if TYPE_CHECKING:
    __version__: str
    from koser.inference.explanation import Explanation, explain
    from koser.inference.prediction import Failure, Prediction, Values
    from koser.inference.recognizer import Recognizer, load_recognizer
    from koser.inference.segments import Segment, TimelineOptions
    from koser.inference.stream import EmotionStream, StreamResult
    from koser.inference.timeline import Timeline, make_timeline
    from koser.inference.values import Regressor, load_regressor

__all__ = [
    "EmotionStream",
    "Explanation",
    "Failure",
    "Prediction",
    "Recognizer",
    "Regressor",
    "Segment",
    "StreamResult",
    "Timeline",
    "TimelineOptions",
    "Values",
    "__version__",
    "explain",
    "load_recognizer",
    "load_regressor",
    "make_timeline",
]
# Name -> the module of `koser.inference` that defines it.
_HOMES = {
    "EmotionStream": "stream",
    "Explanation": "explanation",
    "Failure": "prediction",
    "Prediction": "prediction",
    "Recognizer": "recognizer",
    "Regressor": "values",
    "Segment": "segments",
    "StreamResult": "stream",
    "Timeline": "timeline",
    "TimelineOptions": "segments",
    "Values": "prediction",
    "explain": "explanation",
    "load_recognizer": "recognizer",
    "load_regressor": "values",
    "make_timeline": "timeline",
}


def __getattr__(name: str) -> object:
    # Only what is used is imported: `import koser` must load no torch.
    if name == "__version__":
        from importlib.metadata import version

        return version("koser")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"koser.inference.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'koser' has no attribute '{name}'")
