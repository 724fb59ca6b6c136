"""`python -m sbe.daemon`."""

from sbe.daemon import main

raise SystemExit(main())
