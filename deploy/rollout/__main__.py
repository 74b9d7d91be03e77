"""`python -m deploy.rollout`: move requests between two versions of a model, by the weights of an overlay."""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from deploy.rollout import evidence, pictures, verdict, weights

OVERLAY = Path("deploy/kubernetes/overlays/canary")
SECONDS = 60.0


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m deploy.rollout", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    moving = argparse.ArgumentParser(add_help=False)
    moving.add_argument("route", help="name of the HTTPRoute and of the stable Service, such as duet-classification")
    moving.add_argument("--overlay", type=Path, default=OVERLAY, help=f"folder whose weights change; {OVERLAY}")
    moving.add_argument("--dry-run", action="store_true", help="show the change, and change nothing")
    moving.add_argument("--apply", action="store_true", help="give the route to the cluster, too, by kubectl apply")
    asking = argparse.ArgumentParser(add_help=False)
    asking.add_argument("--from", dest="old", required=True, metavar="NAME:VERSION", help="what the stable pods answer")
    asking.add_argument("--to", dest="new", required=True, metavar="NAME:VERSION", help="what the canary answers")
    asking.add_argument("--stable", nargs="+", required=True, metavar="URL", help="the stable pods")
    asking.add_argument("--canary", nargs="+", required=True, metavar="URL", help="the pods of the canary")
    asking.add_argument("--seconds", type=float, default=SECONDS, help=f"to count answers for; {SECONDS:g}")
    asking.add_argument("--pictures", type=Path, help="folder of PNG or JPEG files that both versions classify")
    shift = commands.add_parser("shift", parents=[moving], help="send a share of the requests to the canary")
    shift.add_argument("percent", type=int, choices=range(100), metavar="PERCENT", help="from 0 to 99")
    commands.add_parser("compare", parents=[asking], help="compare the canary with the stable one, and change nothing")
    commands.add_parser("promote", parents=[moving, asking], help="compare, then send every request to the canary")
    commands.add_parser("rollback", parents=[moving], help="send no request to the canary")
    return main


def compare(options: argparse.Namespace) -> list[str]:
    """Print what is compared; returns why the canary is not promoted."""
    groups = (options.stable, options.canary)
    evidence.check_served(groups, (options.old, options.new))
    pages = evidence.over(options.seconds, groups)
    stable, canary = (evidence.counts(*one) for one in zip(pages, (options.old, options.new), strict=True))
    found = verdict.checks(stable, canary)
    print(f"p99: stable at most {verdict.p99(stable):g} s, canary at most {verdict.p99(canary):g} s")
    print(f"{'':34}{'stable':>16}{'canary':>16}  difference, tolerated (points)")
    for check in found:
        lower, upper = check.interval
        shares = "".join(f"{100 * one.value:8.2f} % of {one.of:<6.0f}" for one in (check.stable, check.canary))
        print(f"{check.what:30}{shares}{100 * lower:+7.2f} to {100 * upper:+.2f}, {100 * check.tolerated:g}")
    reasons = verdict.refusals(found)
    if options.pictures:
        share = pictures.changed(options.canary[0], options.pictures, (options.old, options.new))
        print(f"pictures with another class: {share.hits:.0f} of {share.of:.0f}")
        reasons += verdict.of_pictures(share)
    for reason in reasons:
        print(f"refused: {reason}")
    return reasons


def move(options: argparse.Namespace, percent: int) -> None:
    """Write the weights, show the change, and give them to the cluster if that is asked for."""
    found = weights.find(options.overlay, options.route)
    text = found.moved(percent)
    print(
        found.diff(text) or f"{found.path}: the canary has {percent} % already", end="\n" if text == found.text else ""
    )
    if options.dry_run:
        return
    found.path.write_text(text)
    if options.apply:
        apply(options.overlay, options.route)
    else:
        print(f"written: {found.path}; commit it, or let --apply give it to the cluster")


def apply(overlay: Path, route: str) -> None:
    """Give the HTTPRoute of an overlay, and nothing else of it, to the cluster."""
    rendered = subprocess.run(["kubectl", "kustomize", str(overlay)], check=True, capture_output=True, text=True).stdout
    routes = [
        document
        for document in yaml.safe_load_all(rendered)
        if document["kind"] == "HTTPRoute" and document["metadata"]["name"] == route
    ]
    if not routes:
        raise weights.WeightError(f"{overlay}: it renders no HTTPRoute {route}; name one that it has")
    subprocess.run(["kubectl", "apply", "-f", "-"], check=True, input=yaml.safe_dump(routes[0]), text=True)


def main() -> None:
    options = parser().parse_args()
    try:
        if options.command in ("compare", "promote") and compare(options):
            sys.exit(1)
        if options.command == "compare":
            print("nothing speaks against it")
        else:
            move(options, {"promote": 100, "rollback": 0}.get(options.command) or getattr(options, "percent", 0))
    except (evidence.EvidenceError, weights.WeightError) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename} is not installed (kubectl gives the route to the cluster)")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(error.cmd)} ended with {error.returncode} {error.stderr or ''}".rstrip())


if __name__ == "__main__":
    main()
