"""`python -m descend.cli`."""

import sys

from . import main

sys.exit(main())
