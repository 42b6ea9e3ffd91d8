"""Functions that operate the stack: certificate and token rotation, and the budget limit.

They run in Lambda with boto3, cryptography and the standard library; the Pulumi program packages them as files.
"""
