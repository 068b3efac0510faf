"""``python -m dlf`` is the command ``dlf``."""

import sys

from dlf.cli.main import main

sys.exit(main())
