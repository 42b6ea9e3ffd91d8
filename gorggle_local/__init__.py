"""``gorggle local``: the whole product on one machine."""
