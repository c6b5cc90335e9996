"""`python tests/chaos/run.py kills --kills=100 --stage=stage2 --seed=0 --report=report.json`

Hurts real training and compares it, bit for bit, with the run that nothing happened to. Ends with 0 if nothing was
lost, damaged or changed unseen, else with 1. All random choices come from --seed; moments also depend on the
machine's speed.
"""

import argparse
import pathlib
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[2])]

from chaos import kills, soak, toy
from chaos.campaign import Campaign, good, table, write

COMMANDS = {
    "kills": "signals at random moments, and inside saves, moves and deletions",
    "soak": "one long run, a fault every --every seconds; its goodput",
}


def arguments(argv=None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\ncommands:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
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
    add("--directory", default="", help="of runs, logs and compiled programs; empty: a new temporary one")
    add("--kills", type=int, default=100, help="kills: how many a stage")
    add("--minutes", type=float, default=120, help="soak: how long")
    add("--every", type=float, default=60, help="soak: seconds between two faults")
    add("--pace", type=float, default=0.5, help="soak: seconds that the data takes for a batch, so that a step's "
        "time does not depend on who else uses the machine")  # fmt: skip
    add("--faults", default=",".join(soak.FAULTS), help="soak: kinds drawn, by commas")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, campaign: Campaign):
    for target in args.stage.split(","):
        if args.command == "kills":
            kills.kills(campaign, target, args.kills)
        else:
            soak.soak(campaign, target, args.minutes, args.every, args.pace, args.faults.split(","))


def main(argv=None) -> int:
    args = arguments(argv)
    directory = args.directory or tempfile.mkdtemp(prefix="chaos-")
    say = lambda line: print(line, flush=True)
    campaign = Campaign(directory, args.seed, args.processes, args.saver, args.steps, say)
    say(f"runs, logs and compiled programs in {directory}")
    try:
        run(args, campaign)
    finally:  # what is known so far is told, whatever stopped it
        report = campaign.report(
            " ".join([args.command, *(f"--{k}={v}" for k, v in vars(args).items() if k != "command")])
        )
        if args.report:
            write(report, args.report)
        say(table(report))
    return 0 if good(report) else 1


if __name__ == "__main__":
    sys.exit(main())
