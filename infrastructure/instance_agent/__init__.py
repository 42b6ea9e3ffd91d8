"""The bootstrap of a GPU instance, and an agent that runs next to the server and connects it to AWS.

It needs only boto3 and runs as ``python -m infrastructure.instance_agent`` from the server bundle.
"""
