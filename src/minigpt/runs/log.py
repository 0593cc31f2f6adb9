"""The log file of a run."""

import logging
from pathlib import Path

from minigpt.runs.redaction import redact

log = logging.getLogger("minigpt")
LOG = "train.log"


class RedactingFormatter(logging.Formatter):
    """Keeps secrets out of a log."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def start_log(directory: Path) -> None:
    """Write what the package logs, and Python's warnings, to `train.log`; `hydra.verbose=true` adds debug messages."""
    handler = logging.FileHandler(directory / LOG, encoding="utf-8")
    handler.handleError = lambda record: None  # a full disk is met, and reported, where checkpoints are written
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    for name in ("minigpt", "py.warnings"):
        logger = logging.getLogger(name)
        for earlier in logger.handlers:  # of another run in this process
            earlier.close()
        logger.handlers = [handler]
    verbose = logging.getLogger().level == logging.DEBUG
    log.setLevel(log.level or (logging.DEBUG if verbose else logging.INFO))
