"""Logs as one JSON object a line: what happened and how long it took.

Nothing that identifies what was said or by whom is written: no sound, no file names, no results,
no addresses, no query strings, no keys.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

# What `log_event` hands over in a record.
_FIELDS = "koser_fields"


class JsonFormatter(logging.Formatter):
    """A record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger and message, then the event's own fields."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False, default=str)


def log_event(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Log `event` with fields of its own."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={_FIELDS: fields})


def log_settings(level: str = "INFO") -> dict[str, Any]:
    """Settings for `logging.config.dictConfig`: everything as JSON on standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "koser.serving.logs.JsonFormatter"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "json",
            }
        },
        "loggers": {
            name: {"handlers": ["stderr"], "level": level, "propagate": False}
            for name in ("koser", "uvicorn")
        }
        # It would write addresses and query strings.
        | {"uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False}},
    }
