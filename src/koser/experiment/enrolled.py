"""What is not done with runs whose models have heard the tested persons first."""

from __future__ import annotations

from koser.errors import RunError
from koser.reporting.runs import RunFolder


def refuse_enrolled(run: RunFolder, what: str) -> None:
    """Refuse a run with enrolled speakers where their utterances would not be heard.

    Its models would then give other answers than the run, under the name of its protocol.

    Raises
    ------
    RunError
        If the run has enrolled anybody.
    """
    enrolment = run.description["experiment"]["config"].get("enrolment") or {}
    if enrolment.get("k"):
        raise RunError(
            f"'{run.folder}' was tested after hearing {enrolment['k']} utterances of each person, "
            f"which {what} does not do. Give a run without --enrol."
        )
