"""`python tests/faults/chaos/run.py kills --kills=100 --stage=stage2 --seed=0 --report=report.json`

Hurts real training and compares it, bit for bit, with the run that nothing happened to. Ends with 0
if nothing was lost, damaged or changed unseen, else with 1. All random choices come from --seed;
moments also depend on the machine's speed.
"""

import argparse
import pathlib
import sys
import tempfile

from absl import logging

sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from faults.chaos import damage, disk, kills, soak, toy
from faults.chaos.campaign import Campaign, good, table, write

POISON = (7, 2)  # NaN in two steps of every seven
COMMANDS = {
    "kills": "signals at random moments, and inside saves, moves and deletions",
    "poison": "the same into runs some of whose losses are NaN",
    "damage": "flipped bits, cut and missing files of checkpoints, between two starts",
    "disk": "a full disk, for a while and to the end (mounts a tmpfs: takes root)",
    "soak": "one long run, a fault every --every seconds; its goodput",
    "all": "all of these, one after the other; the report is a list",
}


def arguments(argv=None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\ncommands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", choices=list(COMMANDS))
    add(
        "--stage",
        default="stage2",
        help=f"what is trained, several by commas: {', '.join(filter(None, toy.TARGETS))}",
    )
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=0, help="of the stage; 0: as in toy.py")
    add("--processes", type=int, default=1, choices=(1, 2), help="of one run, over loopback")
    add("--saver", default="", choices=("", "naive"), help="naive: the control, which must fail")
    add("--report", default="", help="where the JSON report goes")
    add(
        "--directory",
        default="",
        help="of runs, logs and compiled programs; empty: a new temporary one",
    )
    add("--kills", type=int, default=100, help="kills, poison: how many a stage")
    add("--count", type=int, default=100, help="damage: how many a stage")
    add("--minutes", type=float, default=120, help="soak: how long")
    add("--every", type=float, default=60, help="soak: seconds between two faults")
    add(
        "--pace",
        type=float,
        default=0.5,
        help="soak: seconds that the data takes for a batch, so that a step's "
        "time does not depend on who else uses the machine",
    )
    add("--faults", default=",".join(soak.FAULTS), help="soak: kinds drawn, by commas")
    return parser.parse_args(argv)


def run(command: str, args: argparse.Namespace, directory: str) -> dict:
    """One command for all stages asked for; its report."""
    say = lambda line: print(line, flush=True)
    campaign = Campaign(
        pathlib.Path(directory, command), args.seed, args.processes, args.saver, args.steps, say
    )
    try:
        for target in args.stage.split(","):
            if command == "damage":
                damage.damage(campaign, target, args.count)
            elif command == "disk":
                disk.disk(campaign, target)
            elif command == "soak":
                soak.soak(
                    campaign, target, args.minutes, args.every, args.pace, args.faults.split(",")
                )
            else:
                kills.kills(campaign, target, args.kills, POISON if command == "poison" else None)
    finally:  # what is known so far is told, whatever stopped it, and nothing is left running
        if campaign.latest:
            campaign.latest.end()
        report = campaign.report(f"{command} --stage={args.stage}")
        if args.report:
            write(report, args.report if args.command != "all" else f"{args.report}.{command}")
        say(table(report))
    return report


def main(argv=None) -> int:
    args = arguments(argv)
    logging.set_verbosity(logging.ERROR)  # Orbax has something to say about each checkpoint
    directory = args.directory or tempfile.mkdtemp(prefix="chaos-")
    print(f"runs, logs and compiled programs in {directory}", flush=True)
    commands = [c for c in COMMANDS if c != "all"] if args.command == "all" else [args.command]
    reports = [run(command, args, directory) for command in commands]
    if args.report and args.command == "all":
        write(reports, args.report)
    return 0 if all(map(good, reports)) else 1


if __name__ == "__main__":
    sys.exit(main())
