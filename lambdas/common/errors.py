"""Errors raised by the functions, named after the cause.

The state machine matches errors by exact name, so each of these, and each SDK error that a function lets through, is in
``state_machine.py``; a test compares the two lists.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all errors that the functions raise. The message is shown to users."""


class InvalidMediaError(PipelineError):
    """The video cannot be decoded or exceeds a limit; the job fails with the reason."""


class ObjectNotFoundError(PipelineError):
    """The uploaded object, or this version of it, does not exist; the job fails."""


class JobNotFoundError(PipelineError):
    """The job was deleted while it ran."""


class SourceFailedError(PipelineError):
    """Transcribe or Rekognition rejected the media or failed; the result lacks this source."""


class SourceTimeoutError(PipelineError):
    """Transcribe or Rekognition did not finish in time; the result lacks this source."""


class FleetTimeoutError(PipelineError):
    """No GPU server became ready in time; the result lacks lip reading."""


class ServerStalledError(PipelineError):
    """The GPU server stopped responding; retried."""


class WindowMissingError(PipelineError):
    """A window has neither a result nor a recorded failure: a bug."""


class NoTranscriptError(PipelineError):
    """Neither lips nor audio could be transcribed; there is no result."""


class AwsUnavailableError(PipelineError):
    """An AWS service throttles or fails temporarily; retried."""
