"""Korean speech emotion recognition that can be believed and deployed.

A trained model, in three lines::

    import koser
    recognizer = koser.load_recognizer("runs/mfcc_speaker_20261122-150000")
    print(recognizer.predict_file("call.wav").label)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from koser.inference.prediction import Prediction
    from koser.inference.recognizer import Recognizer, load_recognizer

__all__ = ["Prediction", "Recognizer", "__version__", "load_recognizer"]


def __getattr__(name: str) -> object:
    # Only what is used is imported: `import koser` must load no torch.
    if name == "__version__":
        from importlib.metadata import version

        return version("koser")
    if name in __all__:
        from koser.inference import recognizer

        return getattr(recognizer, name)
    raise AttributeError(f"module 'koser' has no attribute '{name}'")
