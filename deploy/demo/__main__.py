"""`make demo`: Ctrl-C ends it with one sentence at any step, while the libraries are imported too."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    from deploy.demo.steps import main

    main()
except KeyboardInterrupt:
    print("\nStopped. `make demo` goes on from here.")
    sys.exit(130)
