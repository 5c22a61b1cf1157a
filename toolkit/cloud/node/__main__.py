"""``python -m toolkit.cloud.node``, which the boot script calls when the bundle is installed."""

import sys

from toolkit.cloud.node.work import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
