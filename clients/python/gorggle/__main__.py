"""``python -m gorggle``: the same as the command ``gorggle``."""

import sys

from gorggle.cli.main import main

sys.exit(main())
