"""The page of serve.py's figures."""

NAMES = {"ours": "this server", "one": "one at a time", "transformers": "transformers"}


def page(found: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"`{found['command']}` on {found['processor']}; {versions}", "",
        found["shape"], "",
        *rates(found), "",
        *latencies(found), "",
        *short(found), "",
        *same(found["alike"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def loads(found: dict) -> dict:
    """What a load is called -> side -> its figures."""
    out = {}
    for side, one in found["sides"].items():
        for clients, figures in one["closed"].items():
            name = f"{clients} client" + ("s" if int(clients) > 1 else "")
            out.setdefault(name, {})[side] = figures
        if "open" in one:
            out.setdefault(f"{found['rate']:g} a second", {})[side] = one["open"]
    return out


def rates(found: dict) -> list[str]:
    """Pictures a minute of each side and ours over the others'; and what ours does besides."""
    others = [side for side in found["sides"] if side != "ours"]
    head = ["", "this server", *(NAMES[x] for x in others), *(f"over {NAMES[x]}" for x in others)]
    lines = [
        "Pictures a minute (beside as many answers):", "",
        _row([*head, "requests/s", "tokens/s", "CPU s a picture", "others' cores"]),
        _row(["---"] * (len(head) + 4)),
    ]  # fmt: skip
    for name, sides in loads(found).items():
        if "ours" not in sides:
            continue
        ours = sides["ours"]
        drawn = {side: x["pictures/min"] for side, x in sides.items()}
        lines.append(_row([
            name, f"{drawn['ours']:.1f}", *(f"{drawn[x]:.1f}" for x in others),
            *(f"{drawn['ours'] / drawn[x]:.2f}x" for x in others), f"{ours['requests/s']:.2f}",
            f"{ours['tokens/s']:.0f}", " / ".join(_spent(x) for x in sides.values()),
            " / ".join(_cores(x) for x in sides.values()),
        ]))  # fmt: skip
    return lines


def _spent(figures: dict) -> str:
    """CPU seconds of a server for a picture and what is asked beside it."""
    if "CPU s" not in figures:
        return "-"
    return f"{60 * figures['CPU s'] / figures['pictures/min'] / figures['seconds']:.1f}"


def _cores(figures: dict) -> str:
    return "-" if figures.get("others") is None else f"{figures['others']:.1f}"


def latencies(found: dict) -> list[str]:
    lines = [
        "Seconds (p50 / p95 / p99):", "",
        _row(["", "", "first token", "answer", "picture", "requests"]), _row(["---"] * 6),
    ]  # fmt: skip
    for name, sides in loads(found).items():
        for side, x in sides.items():
            kinds = (x["first token"], x["answer"], x["picture"])
            lines.append(_row([name, NAMES[side], *map(_three, kinds), str(x["requests"])]))
    return lines


def short(found: dict) -> list[str]:
    """Short answers alone and beside drawings."""
    lines = [
        f"A short answer, alone and beside {found['drawers']} clients that draw without a pause; "
        "what the server holds:", "",
        _row(["", "alone, s", "beside, s", "p95 over p95", "GB"]), _row(["---"] * 5),
    ]  # fmt: skip
    for side, one in found["sides"].items():
        alone, beside = one["short"]["alone"], one["short"]["beside"]
        ratio = f"{beside['p95'] / alone['p95']:.2f}x"
        memory = f"{one['memory'] / 1e9:.2f}"
        lines.append(_row([NAMES[side], _three(alone), _three(beside), ratio, memory]))
    return lines


def same(alike: dict) -> list[str]:
    """How many replies of this server are those of the others."""
    lines = []
    for side, kinds in alike.items():
        for kind, counts in kinds.items():
            drawn, answered = ("{} of {}".format(*counts[x]) for x in ("draw", "answer"))
            what = "of the loads" if kind == "sampled" else "at temperature 0, each alone"
            lines.append(
                f"* The same here and with {NAMES[side]}, {what}: {drawn} pictures, {answered} answers."
            )
    return lines


def _three(x: dict) -> str:
    return " / ".join(f"{x[p]:.2f}" for p in ("p50", "p95", "p99")) if x else "-"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def shape(config) -> str:
    """The model's sizes in a sentence."""
    t, v = config.transformer, config.generation_encoder
    return (
        f"Random weights: a language model of {t.layers} layers of width {t.width}, pictures of "
        f"{v.image_size} x {v.image_size} in {v.tokens} tokens of {v.codebook_size} codes."
    )
