"""The study told: one Markdown page out of its stored JSON files, and out of nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from oar_core.order.plan import CHOSEN_ORDERS
from oar_lab.eval.arms import Arm, group_arms, load_reports, spread
from oar_lab.eval.markdown import markdown_table
from oar_lab.eval.plots import Curve, draw_curves, why_no_plots
from oar_lab.eval.rank_maps import heat_map, heat_sheet
from oar_lab.eval.tables import (
    agreement_table,
    copying_table,
    figures_section,
    floors_table,
    quality_table,
)
from oar_lab.study.claims import FD_EVAL, FD_REC, Figures, claims, distance, is_adaptive
from oar_lab.study.study import DISTILLATION, GROUP_SIZES, GUIDANCE, LIKELIHOOD, STUDY_ARMS, TUNING, slug

NOTES = "notes.md"  # what people say about the figures; it stands at the top of the page
ALL = "one a step"

HOW_TO_READ = """Every backbone has seen the same number of training pictures: those of the any-order stage and of a
fine-tuning on top of it, or as many in raster order from the start. A policy that is trained on a finished backbone
sees as many as the fine-tuning did, on top. Arms with several seeds were fine-tuned and drawn
anew with each, from one any-order backbone; `±` is the standard deviation over them, and a claim compares the seeds
that both sides have. Guidance and group sizes are each
arm's best of a few, found at 16 steps on fewer pictures of another seed. FD-eval is the Frechet distance to held-out
pictures on features of this project's own evaluation network: it is not FID, and compares with no figure outside this
page. FD-rec is the same distance to held-out pictures as the tokenizer reconstructs them: what it loses, no order can
give back. What was wanted was set for FD-eval, which decides; the tokenizer's loss is in both sides of it."""


def write_study_report(folder: Path, out: Path) -> list[str]:
    """`folder` has one folder of figures a data set; returns why plots are missing."""
    pictures = out.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    notes = [why_no_plots()] if why_no_plots() else []
    sections = ["# Orders of generation, compared", HOW_TO_READ]
    if (folder / NOTES).exists():
        sections.append((folder / NOTES).read_text(encoding="utf-8").strip())
    for data in sorted(path for path in folder.iterdir() if path.is_dir()):
        sections += _data_set(data, pictures, has_plots=not notes)
    out.write_text("\n\n".join(sections + [f"No plots: {note}." for note in notes]) + "\n", encoding="utf-8")
    return notes


def _mixed(arms: Sequence[Arm]) -> list[str]:
    """A warning for each arm whose figures of one seed are not all of one model: a row is one training."""
    models: dict[tuple[str, int], set[str]] = {}
    for report in (report for arm in arms for report in arm.reports):
        key = report["label"], report["settings"]["seed"]
        models.setdefault(key, set()).add(report["model"]["hash"])
    return [
        f"**Of several models:** {label}, seed {seed} ({', '.join(sorted(hashes))})."
        for (label, seed), hashes in models.items()
        if len(hashes) > 1
    ]


def _data_set(folder: Path, pictures: Path, *, has_plots: bool) -> list[str]:
    arms = _sorted(group_arms(load_reports(folder)))
    first = arms[0].first
    evaluator, samples = first["evaluator"]["digest"], first["settings"]["num_samples"]
    named = f"{samples:,} pictures a figure, {first['settings']['dtype']}, evaluator {evaluator}."
    sections = [f"## {folder.name}", named, *_mixed(arms), "### Claims", _claims_table(arms)]
    sections += ["### FD-eval by number of steps", _steps_table(arms, *FD_EVAL)]
    sections += ["### FD-rec by number of steps", _steps_table(arms, *FD_REC)]
    if has_plots:
        sections += _plots(arms, folder.name, pictures)
    painting = pictures / f"{folder.name}-painting.webp"
    if painting.exists():
        sections += ["### The same prompts, painted", f"![each arm painting]({pictures.name}/{painting.name})"]
    sections += _adaptive_section(arms)
    sections += ["### Everything measured", quality_table(arms), *figures_section(arms)]
    sections += ["### Guidance", _tuning_table(folder / TUNING / GUIDANCE, "guidance ")]
    sections += ["### Group sizes, 16 steps", _tuning_table(folder / TUNING / GROUP_SIZES, "")]
    sections += ["### Floors", floors_table(arms[0])]
    longest = [arm for arm in arms if not is_adaptive(arm) and arm.first["settings"]["plan"]["steps"] is None]
    sections += ["### Prompt agreement, one token a step", agreement_table(longest)]
    sections += ["### Likelihood along random orders, and copying, one token a step", copying_table(longest)]
    sections += _likelihood_section(folder / LIKELIHOOD)
    return sections + _orders_section(longest, folder, pictures)


def _likelihood_section(folder: Path) -> list[str]:
    told = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not told:
        return []
    rows: list[list[str]] = []
    for label in [arm.label for arm in STUDY_ARMS if any(entry["label"] == arm.label for entry in told)]:
        mine = [entry for entry in told if entry["label"] == label]
        figures = (spread([entry[name] for entry in mine], digits=3) for name in ("own", "random"))
        rows.append([label, mine[0]["order"], str(len(mine)), *figures])
    table = markdown_table(("arm", "its order", "seeds", "bits a token in it", "in random order"), rows)
    return [f"### Likelihood of {told[0]['num_images']:,} held-out pictures", table]


def _sorted(arms: Sequence[Arm]) -> list[Arm]:
    labels = [arm.label for arm in STUDY_ARMS]

    def key(arm: Arm) -> tuple[int, bool, float]:
        place = labels.index(arm.label) if arm.label in labels else len(labels)
        return place, is_adaptive(arm), -arm.mean("cost", "mean_steps")

    return sorted(arms, key=key)


def _claims_table(arms: Sequence[Arm]) -> str:
    verdicts = {None: "open", True: "yes", False: "**no**"}
    rows = [(claim.text, claim.wanted, claim.measured, verdicts[claim.is_met], claim.by_rec) for claim in claims(arms)]
    return markdown_table(("claim", "wanted", "measured", "met", "the same of FD-rec"), rows)


def _steps_table(arms: Sequence[Arm], *figure: str) -> str:
    found = Figures(tuple(arms))
    steps = sorted({arm.first["settings"]["plan"]["steps"] or 0 for arm in arms if not is_adaptive(arm)})
    columns = [*([None] if 0 in steps else []), *sorted((count for count in steps if count), reverse=True)]
    rows: list[list[str]] = []
    for label in dict.fromkeys(arm.label for arm in arms):
        figures = [found.find(label, count) for count in columns]
        rows.append([label, *("" if arm is None else arm.cell(*figure) for arm in figures)])
    return markdown_table(("arm", *(ALL if count is None else str(count) for count in columns)), rows)


def _adaptive_section(arms: Sequence[Arm]) -> list[str]:
    chosen = [arm for arm in arms if is_adaptive(arm)]
    if not chosen:
        return []
    rows = [
        [arm.label, f"{arm.first['settings']['plan']['entropy_bound']:g}", f"{arm.mean('cost', 'mean_steps'):.1f}",
         arm.cell(*FD_EVAL), arm.cell("agreement", "mean", digits=3)]
        for arm in chosen
    ]  # fmt: skip
    return ["### Adaptive groups", markdown_table(("arm", "bound, nats", "mean steps", "FD-eval", "agreement"), rows)]


def _tuning_table(folder: Path, prefix: str) -> str:
    """FD-eval of the few pictures that a setting was chosen by; the folder has the setting's name."""
    tuned: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    named = dict.fromkeys(choice for entry in tuned for choice in entry["fd_eval"])
    choices = sorted(named, key=lambda choice: float(choice) if choice[0].isdigit() else 0.0)  # names as they came
    rows = [
        [
            entry["label"],
            *(f"{entry['fd_eval'][choice]:.2f}" if choice in entry["fd_eval"] else "" for choice in choices),
            str(entry[folder.name]),
        ]
        for entry in tuned
    ]
    return markdown_table(("arm", *(f"{prefix}{choice}" for choice in choices), "taken"), rows)


def _plots(arms: Sequence[Arm], name: str, folder: Path) -> list[str]:
    lines: list[str] = []
    for figure, axis in (("mean_steps", "steps"), ("query_evaluations", "query evaluations per picture")):
        curves: dict[str, list[tuple[float, float]]] = {}
        for arm in arms:
            label = f"{arm.label}, adaptive" if is_adaptive(arm) else arm.label
            curves.setdefault(label, []).append((arm.mean("cost", figure), distance(arm)))
        path = folder / f"{name}-{figure.replace('_', '-')}.png"
        draw_curves([Curve(label, tuple(sorted(points))) for label, points in curves.items()], axis, "FD-eval", path)
        lines.append(f"![FD-eval against {axis}]({folder.name}/{path.name})")
    return lines


def _orders_section(arms: Sequence[Arm], folder: Path, pictures: Path) -> list[str]:
    """Heat maps of every arm, and of every class where the order follows the picture."""
    maps = {arm.label: torch.tensor(arm.first["orders"]["rank_map"]) for arm in arms}
    path = pictures / f"{folder.name}-orders.png"
    heat_sheet(maps, columns=4).save(path)
    rows = [
        [arm.label, *(f"{arm.first['orders'][name]:.3f}" for name in ("rank_entropy", "pairwise_entropy"))]
        for arm in arms
    ]
    sections = [
        "### Orders",
        "Mean rank of each position, first ones dark, one token a step:",
        f"![mean ranks of each arm]({pictures.name}/{path.name})",
        "Entropies are 0 for one fixed order and 1 for random ones.",
        markdown_table(("arm", "rank entropy", "pairwise entropy"), rows),
    ]
    for arm in arms:
        by_class = arm.first["orders"]["rank_maps"]
        if arm.order in CHOSEN_ORDERS and by_class:
            path = pictures / f"{folder.name}-classes-{slug(arm.label)}.png"
            heat_sheet({name: torch.tensor(values) for name, values in by_class.items()}).save(path)
            sections.append(f"By class, {arm.label}:\n\n![mean ranks by class]({pictures.name}/{path.name})")
    return sections + _distillation_section(folder, pictures)


def _distillation_section(folder: Path, pictures: Path) -> list[str]:
    path = folder / DISTILLATION
    if not path.exists():
        return []
    stats = json.loads(path.read_text(encoding="utf-8"))
    ranks = torch.tensor(stats["mean_rank"])
    picture = pictures / f"{folder.name}-distilled.png"
    heat_map(ranks / (ranks.numel() - 1)).save(picture)
    rows = [
        [pair, *(f"{values[name]:.2f}" for name in ("spearman", "kendall"))]
        for pair, values in stats["agreement"].items()
    ]
    return [
        "### Distilled orders",
        f"Mean rank in the orders of {stats['num_images']:,} training pictures:",
        f"![mean ranks]({pictures.name}/{picture.name})",
        _figure_and_ground(stats),
        "Agreement between score functions on the same pictures (rank correlations):",
        markdown_table(("scores", "Spearman", "Kendall"), rows),
    ]


def _figure_and_ground(stats: dict[str, Any]) -> str:
    ranks = [stats[f"{part}_rank"] for part in ("foreground", "background")]
    if None in ranks:
        return "All patches are of one kind, figure or ground."
    return f"Patches of the figure have mean rank {ranks[0]:.1f}, those of the white ground {ranks[1]:.1f}."
