"""Errors that functions raise on purpose, named for the cause.

The state machine knows errors by exact name, so each of these, and each of the SDK's that a function lets through,
stands in ``state_machine.asl.json``; a test compares the two lists.

::

    PipelineError
    ├── InvalidMediaError     the video cannot be read, or is beyond a limit: the job fails and shows why
    ├── ObjectNotFoundError     the uploaded object is gone: the job fails
    ├── JobNotFoundError       the job was deleted while it ran
    ├── SourceFailedError     Transcribe or Rekognition refused or gave up: the result does without
    ├── SourceTimeoutError       they did not finish in time: likewise
    ├── FleetTimeoutError        no GPU server was ready in time: the result does without lips
    ├── ServerStalledError    the GPU server sent nothing for too long: try again
    ├── WindowMissingError    a window was neither read nor noted as lost: a fault of ours
    ├── NoTranscriptError      neither lips nor sound could be read: there is no result
    └── AwsUnavailableError   an AWS service throttles or fails for the moment: try again
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of every error that a function raises by itself. The message is shown to people."""


class InvalidMediaError(PipelineError):
    """The video cannot be read, or is beyond a limit."""


class ObjectNotFoundError(PipelineError):
    """The uploaded object, or this version of it, is gone."""


class JobNotFoundError(PipelineError):
    """The job was deleted while it ran."""


class SourceFailedError(PipelineError):
    """Transcribe or Rekognition refused the media or gave up."""


class SourceTimeoutError(PipelineError):
    """Transcribe or Rekognition did not finish in time."""


class FleetTimeoutError(PipelineError):
    """No GPU server was ready in time."""


class ServerStalledError(PipelineError):
    """The GPU server sent nothing for too long."""


class WindowMissingError(PipelineError):
    """A window was neither read nor noted as lost."""


class NoTranscriptError(PipelineError):
    """Neither lips nor sound could be read."""


class AwsUnavailableError(PipelineError):
    """An AWS service throttles or fails for the moment."""
