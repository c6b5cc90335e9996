"""What train_step.py found, as Markdown."""

import machine

FIRST, THIRD = (
    1e-3,
    1e-2,
)  # how far losses may lie apart, relatively, before the first step and after the third


def losses_apart(ours: list[float], theirs: list[float]) -> list[float]:
    """Relative distances of two sides' losses before the first step and after the third."""
    return [abs(ours[i] - theirs[i]) / abs(theirs[i]) for i in (0, 3)]


def same_loss(apart: list[float]) -> bool:
    """Whether the two sides did the same; losses that are not numbers are not."""
    return apart[0] < FIRST and apart[1] < THIRD


def disturbed(x: dict) -> str:
    """How many repetitions others disturbed, of how many."""
    if any(o is None for o in x["others"]):
        return "not known"
    return f"{sum(map(machine.disturbs, x['others']))} of {len(x['others'])}"


def line(name: str, x: dict, work: dict | None = None) -> str:
    """A row of the report. work: whose tokens, FLOPs and chip count, by default its own."""
    work = work or x["about"]
    rate = work["flops"] / x["least"]
    speed = (
        f"{rate / work['peak_flops']:.1%} MFU"
        if work["peak_flops"]
        else f"{rate / 1e9:.0f} GFLOP/s"
    )
    return (
        f"| {name} | {x['least']:.3f} | {x['median']:.3f} | {work['tokens'] / x['least']:.0f} | "
        f"{speed} | {x['peak'] / 1e9:.2f} | {x['first']:.1f} | {disturbed(x)} |"
    )


HEAD = (
    "| | least s | median s | tokens/s | model FLOPs | peak GB | first step s | disturbed |\n"
    "|---|---|---|---|---|---|---|---|"
)


def report(results: dict) -> str:
    lines = [
        f"{results['machine']}; {results['versions']}",
        f"`{results['command']}`",
        "",
        results["shape"],
    ]
    llm = results.get("llm")
    if llm:
        duel, ours, peer = llm["duel"], llm["duel"]["ours"], llm["peer"]
        lines += ["", "## The language model on rows of text", "", HEAD]
        rename = lambda n: (
            n
            if n == "ours"
            else f"transformers, {n}" + (" (leaks)" if n.startswith("causal") else "")
        )
        lines += [line(rename(name), x, ours["about"]) for name, x in duel.items()]
        apart = "first {:.1e}, after three steps {:.1e}".format(*llm["losses apart"])
        if ratio := llm.get("ratio"):
            text = f"least {ratio['least']:.2f}x, median {ratio['median']:.2f}x, memory {ratio['peak']:.2f}x"
        else:
            text = "refused, the losses differ"
        lines += [
            "",
            f"transformers ({peer}) over ours, above 1 ours is better: {text}. Losses apart: "
            f"{apart}.",
        ]
        share = ours["products"] / ours["least"]
        lines += [
            f"Our step's matrix products alone take {ours['products']:.3f} s: {share:.0%} of it.",
            "",
        ]
        lines += ["The peer's variants alone, least of two:", ""]
        show = lambda x: (
            "failed"
            if "failed" in x
            else f"{x['least']:.3f} s, first {x['first']:.1f} s, disturbed {disturbed(x)}"
        )
        lines += [f"- {rename(name)}: {show(x)}" for name, x in llm["survey"].items()]
    if found := results.get("stages"):
        lines += ["", "## Janus by stage, ours alone", "", HEAD]
        dense, packed = found["stage 2's rows, dense"], found["stage 2"]
        lines += [
            line(name, x, packed["about"] if x is dense else None) for name, x in found.items()
        ]
        frozen = found["stage 1"]["least"] / found["stage 1's rows, stage 2's weights"]["least"]
        faster = dense["least"] / packed["least"]
        lines += [
            "",
            f"Stage 1's step takes {frozen:.2f} of what its rows take with stage 2's weights "
            "trained.",
        ]
        lines += [f"Stage 2's step is {faster:.2f} times as fast as the dense one."]
    return "\n".join(lines) + "\n"
