"""What runs on a GPU instance beside the server: its start, and an attendant that speaks for it to AWS.

It needs boto3 and the standard library, and is run as ``python -m infrastructure.instance_agent`` from the instance's bundle.
"""
