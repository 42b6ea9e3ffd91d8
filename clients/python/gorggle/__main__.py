"""``python -m gorggle``: the ``gorggle`` command."""

import sys

from gorggle.cli.main import main

sys.exit(main())
