"""Prints the packages of a `pip install --report` file as pins, one line each."""

import json
import re
import sys
from pathlib import Path

# torch pins its CUDA libraries itself, on Linux only; setuptools comes with the build, duet is the project.
LEFT_OUT = re.compile(r"duet|setuptools|triton|cuda-.*|nvidia-(?!ml-py).*")

if __name__ == "__main__":
    packages = [item["metadata"] for item in json.loads(Path(sys.argv[1]).read_text())["install"]]
    print("# Written by `make lock`; do not edit.")
    for package in sorted(packages, key=lambda package: package["name"].lower()):
        if not LEFT_OUT.fullmatch(package["name"].lower()):
            public = package["version"].split("+")[0]  # 2.13.0+cpu is one build of 2.13.0
            print(f"{package['name']}=={public}")
