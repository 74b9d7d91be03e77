"""Compile the modules in folders, `stdlib` being that of this Python; the Containerfile runs it in the base.

The bytecode is not checked against its source, because the times of files in an image are all the same. One process
compiles in one order, because what is marshalled depends on it.
"""

import compileall
import py_compile
import sys
import sysconfig

UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH

for folder in sys.argv[1:]:
    path = sysconfig.get_path("stdlib") if folder == "stdlib" else folder
    compileall.compile_dir(path, quiet=2, invalidation_mode=UNCHECKED)  # some packages ship what does not compile
