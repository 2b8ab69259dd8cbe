"""Evaluations told: Markdown tables, plots and heat maps out of stored JSON, and out of nothing else."""

from collections.abc import Sequence
from pathlib import Path

import torch

from oar_lab.eval.arms import Arm, Report, best_guidance, group_arms
from oar_lab.eval.markdown import markdown_table
from oar_lab.eval.plots import plot_distances, why_no_plots
from oar_lab.eval.rank_maps import heat_map, heat_sheet
from oar_lab.eval.tables import (
    agreement_table,
    changes_section,
    copying_table,
    figures_section,
    floors_table,
    quality_table,
)


def write_report(reports: Sequence[Report], out: Path) -> list[str]:
    """Writes the Markdown file, its pictures into a folder of the same name; returns why plots are missing."""
    pictures = out.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    sections, notes = ["# Evaluations", HOW_TO_READ], [why_no_plots()] if why_no_plots() else []
    for title, arms in _comparable(group_arms(reports)).items():
        sections += [f"## {title}", quality_table(arms), *_intervals(arms), *_best_section(arms)]
        if not notes:
            sections += plot_distances(
                arms, lambda arm: arm.curve, lambda arm: arm.mean("distances", "fd_eval"), _slug(title), pictures
            )
        sections += ["### Floors", floors_table(arms[0]), _tokenizer_line(arms[0])]
        sections += ["### Prompt agreement", agreement_table(arms)]
        sections += ["### Likelihood and copying", copying_table(arms), _inception_line(arms)]
        sections += ["### Orders", ORDERS_TEXT, _orders(arms, pictures), *_class_maps(arms, pictures)]
    out.write_text("\n\n".join(sections + [f"No plots: {note}." for note in notes]) + "\n", encoding="utf-8")
    return notes


HOW_TO_READ = (
    "FD-eval is the Frechet distance on features of this project's own evaluation network; it is not FID and compares "
    "with no figure outside these tables. `queries` counts the positions asked of the network for one picture, "
    "guidance's second row included, `policy queries` those asked of an order policy. `of real` is agreement as a "
    "share of what the evaluator reads off real pictures. `closer` is the share of pictures that lie closer to a "
    "training picture than all but the closest 1 % of held-out real ones: 0.01 is what new pictures have. `±` is the "
    "standard deviation over seeds, and KID's standard error. Precision and recall take one picture of each label row."
)
BEST_TEXT = "### With each arm's best guidance\n\nChosen by FD-eval on these same samples."
ORDERS_TEXT = "Mean rank of each position, first ones dark. Entropies: 0 for one fixed order, 1 for random ones."


def _comparable(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Groups arms by data and evaluator: only within these may figures be compared."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        first = arm.first
        title = f"{first['recipe']}, {first['split']}, evaluator {first['evaluator']['digest'][:8]}"
        groups.setdefault(title, []).append(arm)
    return groups


def _orders(arms: Sequence[Arm], folder: Path) -> str:
    rows: list[list[str]] = []
    for arm in arms:
        orders = arm.first["orders"]
        path = folder / f"order-{_slug(arm.label)}-{arm.key}.png"
        heat_map(torch.tensor(orders["rank_map"])).save(path)
        rows.append([
            arm.name, f"![mean ranks]({folder.name}/{path.name})",
            f"{orders['rank_entropy']:.3f}", f"{orders['pairwise_entropy']:.3f}",
        ])  # fmt: skip
    return markdown_table(("arm", "mean rank", "rank entropy", "pairwise entropy"), rows)


def _best_section(arms: Sequence[Arm]) -> list[str]:
    best = best_guidance(arms)
    return [BEST_TEXT, quality_table(best)] if len(best) < len(arms) else []


def _class_maps(arms: Sequence[Arm], folder: Path) -> list[str]:
    """One sheet an arm, of orders that look at the picture: neither fixed nor random."""
    lines: list[str] = []
    for arm in arms:
        orders = arm.first["orders"]
        if orders["rank_maps"] and 0.01 < orders["pairwise_entropy"] < 0.99:
            path = folder / f"classes-{_slug(arm.label)}-{arm.key}.png"
            heat_sheet({name: torch.tensor(values) for name, values in orders["rank_maps"].items()}).save(path)
            lines.append(f"Mean ranks by class, {arm.name}:\n\n![mean ranks]({folder.name}/{path.name})")
    return lines


def _intervals(arms: Sequence[Arm]) -> list[str]:
    """Intervals of the distances, then of changes from the first arm with random order, or from the first of all."""
    base = next((arm for arm in arms if arm.order == "random"), arms[0])
    tables = [*figures_section(arms), *changes_section(arms, base)]
    return ["### Intervals", *tables] if tables else []


def _tokenizer_line(arm: Arm) -> str:
    tokenizer = arm.first["floors"]["tokenizer"]
    return (
        f"Tokenizer on {tokenizer['num_images']} held-out pictures: {tokenizer['psnr']:.2f} dB, "
        f"{100 * tokenizer['codes_used']:.1f} % of codes used, perplexity {tokenizer['perplexity']:.0f}."
    )


def _inception_line(arms: Sequence[Arm]) -> str:
    found = [
        f"{arm.label} {arm.first['inception_fid']['fid']:.2f}" for arm in arms if "fid" in arm.first["inception_fid"]
    ]
    if found:
        return f"Inception FID: {', '.join(found)}."
    return f"Inception FID: unavailable, {arms[0].first['inception_fid']['unavailable']}."


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text).split())
