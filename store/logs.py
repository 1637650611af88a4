"""JSON lines on stderr, of the API and of workers: ours and every library's alike, with the request and the job that
they belong to. What is secret is cut out of the finished line, wherever in it it may be.
"""

import logging
import re
import sys

import structlog

_SECRETS = (
    (re.compile(r"\b(vp_[A-Za-z0-9]+_)[A-Za-z0-9_-]{16,}"), r"\1…"),  # our keys
    (re.compile(r"\b(whsec_)[A-Za-z0-9+/=_-]+"), r"\1…"),  # webhooks' secrets
    (re.compile(r"\b(bearer\s+)(?!vp_)[^\s\"'\\]+", re.IGNORECASE), r"\1…"),
    (re.compile(r"(://[^\s/@:\"]*:)[^\s/@\"]+@"), r"\1…@"),  # a database's or broker's password
    (re.compile(r"([?&](?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token)=)[^&\s\"]+"), r"\1…"),
)
_SILENT = ("uvicorn.access", "httpx", "httpcore")  # api.observe says more; a client's URL may hold a token


def configure() -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
                _without_secrets,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # it has given them handlers of its own
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def redacted(line: str) -> str:
    for secret, replacement in _SECRETS:
        line = secret.sub(replacement, line)
    return line


def _without_secrets(_: object, __: str, line: structlog.typing.EventDict | str) -> str:
    return redacted(str(line))
