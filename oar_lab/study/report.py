"""The study as one Markdown page, made from its stored JSON files and its notes alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from oar_lab.eval.arms import Arm, group_arms, load_reports, spread
from oar_lab.eval.markdown import markdown_table
from oar_lab.eval.plots import plot_distances, why_no_plots
from oar_lab.eval.rank_maps import heat_map, heat_sheet
from oar_lab.study.claims import FD_EVAL, FD_REC, Figures, StudyClaim, claims, distance, is_adaptive
from oar_lab.study.study import DISTILLATION, LIKELIHOOD
from oar_lab.study.study_arms import STUDY_ARMS

NOTES = "notes.md"  # conclusions of people; they stand at the top of the page
ALL = "one a step"
GROWING = "growing guidance"
MIXED = "†"
VERDICTS = {None: "open", True: "yes", False: "**no**"}

HOW_TO_READ = """All backbones have seen the same number of training pictures. A policy that is trained on a finished
backbone sees more. `±` is the standard deviation over the seeds; an arm without it has one seed. Guidance and group
sizes are the best of a few for each arm, chosen at 16 steps. A cell has FD-eval and FD-rec, defined in
[measuring.md](measuring.md); FD-eval decides the claims. An empty cell was not measured. `oar eval report` writes a
table of every figure in `study/`."""


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


def _mixed(arms: Sequence[Arm]) -> set[str]:
    """The labels of arms whose figures of one seed are of several models. Usually a row is one training."""
    models: dict[tuple[str, int], set[str]] = {}
    for report in (report for arm in arms for report in arm.reports):
        key = report["label"], report["settings"]["seed"]
        models.setdefault(key, set()).add(report["model"]["hash"])
    return {label for (label, _), hashes in models.items() if len(hashes) > 1}


def _data_set(folder: Path, pictures: Path, *, has_plots: bool) -> list[str]:
    arms = _sorted(group_arms(load_reports(folder)))
    settings, floors = arms[0].first["settings"], arms[0].first["floors"]
    named = (
        f"{settings['num_samples']:,} pictures a figure, {settings['dtype']}. FD-eval of reconstructions: "
        f"{floors['reconstruction']['fd_eval']:.2f}."
    )
    sections = [f"## {folder.name}", named, "### FD-eval / FD-rec by number of steps", _steps_table(arms)]
    if has_plots:
        sections += plot_distances(arms, _curve, distance, folder.name, pictures)
    sections += ["### Claims", *_claims_tables(arms)]
    painting = pictures / f"{folder.name}-painting.webp"
    if painting.exists():
        sections += ["### The same prompts, painted", f"![each arm painting]({pictures.name}/{painting.name})"]
    sections += _adaptive_section(arms)
    sections += _likelihood_section(folder / LIKELIHOOD)
    longest = [arm for arm in arms if not is_adaptive(arm) and arm.first["settings"]["plan"]["steps"] is None]
    return sections + _orders_section(longest, folder, pictures)


def _likelihood_section(folder: Path) -> list[str]:
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not stored:
        return []
    rows: list[list[str]] = []
    for label in [arm.label for arm in STUDY_ARMS if any(entry["label"] == arm.label for entry in stored)]:
        mine = [entry for entry in stored if entry["label"] == label]
        figures = (spread([entry[name] for entry in mine], digits=3) for name in ("own", "random"))
        rows.append([label, *figures])
    table = markdown_table(("arm", "bits a token in its order", "in random order"), rows)
    return [f"### Likelihood of {stored[0]['num_images']:,} held-out pictures", table]


def _sorted(arms: Sequence[Arm]) -> list[Arm]:
    labels = [arm.label for arm in STUDY_ARMS]

    def key(arm: Arm) -> tuple[int, bool, float]:
        place = labels.index(arm.label) if arm.label in labels else len(labels)
        return place, is_adaptive(arm), -arm.mean("cost", "mean_steps")

    return sorted(arms, key=key)


def _claims_tables(arms: Sequence[Arm]) -> list[str]:
    """One table of the claims that several arms share, and one of the others."""
    shared: dict[str, dict[str, StudyClaim]] = {}
    others: list[StudyClaim] = []
    for claim in claims(arms):
        label = max((arm.label for arm in STUDY_ARMS if claim.text.startswith(f"{arm.label}, ")), key=len, default=None)
        if label is None or claim.is_met is None:
            others.append(claim)
        else:
            shared.setdefault(label, {})[claim.text.removeprefix(f"{label}, ")] = claim
    rest = [(claim.text, claim.aim, claim.measured, VERDICTS[claim.is_met]) for claim in others]
    growing = {label: row for label, row in shared.items() if label.endswith(GROWING)}
    plain = {label: row for label, row in shared.items() if label not in growing}
    matrices = [_claims_matrix(rows) for rows in (plain, growing) if rows]
    return [*matrices, markdown_table(("claim", "aim", "measured", "met"), rest)]


def _claims_matrix(rows: dict[str, dict[str, StudyClaim]]) -> str:
    """One line an arm, one column a question."""
    questions = {text: claim.aim for row in rows.values() for text, claim in row.items()}
    header = ("arm", *(f"{text}: {aim}" for text, aim in questions.items()))
    cells = [[label, *(_verdict(row.get(text)) for text in questions)] for label, row in rows.items()]
    return markdown_table(header, cells)


def _verdict(claim: StudyClaim | None) -> str:
    """Without the values, which the table of steps has."""
    return "" if claim is None else f"{claim.measured.split(' (')[0]}: {VERDICTS[claim.is_met]}"


def _steps_table(arms: Sequence[Arm]) -> str:
    found, mixed = Figures(tuple(arms)), _mixed(arms)
    steps = sorted({arm.first["settings"]["plan"]["steps"] or 0 for arm in arms if not is_adaptive(arm)})
    columns = [*([None] if 0 in steps else []), *sorted((count for count in steps if count), reverse=True)]
    rows: list[list[str]] = []
    for label in dict.fromkeys(arm.label for arm in arms):
        figures = [found.find(label, count) for count in columns]
        cells = ("" if arm is None else f"{arm.cell(*FD_EVAL)} / {arm.cell(*FD_REC)}" for arm in figures)
        rows.append([f"{label} {MIXED}" if label in mixed else label, *cells])
    table = markdown_table(("arm", *(ALL if count is None else str(count) for count in columns)), rows)
    return f"{table}\n\n{MIXED} The row has figures of several trainings." if mixed else table


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


def _curve(arm: Arm) -> str:
    return f"{arm.label}, adaptive" if is_adaptive(arm) else arm.label


def _orders_section(arms: Sequence[Arm], folder: Path, pictures: Path) -> list[str]:
    """Heat maps of every arm."""
    maps = {arm.label: torch.tensor(arm.first["orders"]["rank_map"]) for arm in arms}
    path = pictures / f"{folder.name}-orders.png"
    heat_sheet(maps, columns=4).save(path)
    sections = [
        "### Orders",
        "Mean rank of each position at one token a step; dark positions come first:",
        f"![mean ranks of each arm]({pictures.name}/{path.name})",
    ]
    return sections + _distillation_section(folder, pictures)


def _distillation_section(folder: Path, pictures: Path) -> list[str]:
    path = folder / DISTILLATION
    if not path.exists():
        return []
    stats = json.loads(path.read_text(encoding="utf-8"))
    ranks = torch.tensor(stats["mean_rank"])
    picture = pictures / f"{folder.name}-distilled.png"
    heat_map(ranks / (ranks.numel() - 1)).save(picture)
    return [
        "### Distilled orders",
        f"Mean rank in the orders of {stats['num_images']:,} training pictures. {_figure_and_ground(stats)}",
        f"![mean ranks]({pictures.name}/{picture.name})",
    ]


def _figure_and_ground(stats: dict[str, Any]) -> str:
    ranks = [stats[f"{part}_rank"] for part in ("foreground", "background")]
    if None in ranks:
        return "All patches are figure, or all are ground."
    return f"Mean rank of the figure's patches: {ranks[0]:.1f}; of the white ground: {ranks[1]:.1f}."
