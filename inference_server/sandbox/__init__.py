"""Strangers' media decoded and looked at in processes of their own, shut in: a crash costs its stream alone."""
