"""`make monitoring`: rules and dashboards from the objectives, written where they are committed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deploy.monitoring.boards import boards
from deploy.monitoring.objectives import FILE, ObjectivesError, read
from deploy.monitoring.rules import prometheus_rule, rules, to_yaml

FOLDER = Path("deploy/monitoring")
OPERATOR = Path("deploy/kubernetes/components/monitors/rules.yaml")


def written(objectives: Path = FILE) -> dict[Path, str]:
    """The text of every file that is made of the objectives, by its path from the root.

    Raises:
        ObjectivesError: see `read`.
    """
    found = read(objectives)
    content = rules(found)
    texts = {FOLDER / "rules.yaml": to_yaml(content), OPERATOR: to_yaml(prometheus_rule(content))}
    for name, board in boards(found).items():
        texts[FOLDER / "dashboards" / f"{name}.json"] = json.dumps(board, indent=1) + "\n"
    return texts


def main() -> None:
    """Write them; status 2 if the objectives cannot be used."""
    root = Path(__file__).parents[2]
    try:
        texts = written(Path(sys.argv[1]) if sys.argv[1:] else FILE)
    except ObjectivesError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        print(path)


if __name__ == "__main__":
    main()
