"""Errors raised by the functions, named after the cause.

The state machine matches errors by exact name, so each of these, and each SDK error that a function lets through, is in
``state_machine.py``; a test compares the two lists.

::

    PipelineError
    ├── InvalidMediaError     the video cannot be decoded or exceeds a limit: the job fails with the reason
    ├── ObjectNotFoundError   the uploaded object is missing: the job fails
    ├── JobNotFoundError      the job was deleted while it ran
    ├── SourceFailedError     Transcribe or Rekognition failed: the result lacks this source
    ├── SourceTimeoutError    Transcribe or Rekognition timed out: the result lacks this source
    ├── FleetTimeoutError     no GPU server became ready in time: the result lacks lip reading
    ├── ServerStalledError    the GPU server stopped responding: retried
    ├── WindowMissingError    a window has neither a result nor a recorded failure: a bug
    ├── NoTranscriptError     neither lips nor audio could be transcribed: there is no result
    └── AwsUnavailableError   an AWS service throttles or fails temporarily: retried
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all errors that the functions raise. The message is shown to users."""


class InvalidMediaError(PipelineError):
    """The video cannot be decoded or exceeds a limit."""


class ObjectNotFoundError(PipelineError):
    """The uploaded object, or this version of it, does not exist."""


class JobNotFoundError(PipelineError):
    """The job was deleted while it ran."""


class SourceFailedError(PipelineError):
    """Transcribe or Rekognition rejected the media or failed."""


class SourceTimeoutError(PipelineError):
    """Transcribe or Rekognition did not finish in time."""


class FleetTimeoutError(PipelineError):
    """No GPU server became ready in time."""


class ServerStalledError(PipelineError):
    """The GPU server stopped responding."""


class WindowMissingError(PipelineError):
    """A window has neither a result nor a recorded failure."""


class NoTranscriptError(PipelineError):
    """Neither lips nor audio could be transcribed."""


class AwsUnavailableError(PipelineError):
    """An AWS service throttles or fails temporarily."""
