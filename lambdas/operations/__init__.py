"""Functions that operate the stack itself: certificates, tokens, the budget's brake.

They run in Lambda, with boto3, cryptography and the standard library; the Pulumi program packages them as files.
"""
