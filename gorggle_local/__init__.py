"""``gorggle local``: server, pipeline, API and website on one machine."""
