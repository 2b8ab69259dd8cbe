"""Evaluations as Markdown tables."""

import statistics
from collections.abc import Sequence

from oar_lab.eval.arms import Arm, Report, guidance_text
from oar_lab.eval.comparison import FOOTNOTE, changes_table_rows, comparable, figures_table_rows, has_figures
from oar_lab.eval.markdown import markdown_table


def one_line_tables(reports: Sequence[Report]) -> str:
    """Markdown tables with one line an evaluation."""
    arms = [Arm(report["label"], (report,)) for report in reports]
    return "\n\n".join([quality_table(arms), *figures_section(arms)])


def figures_section(arms: Sequence[Arm]) -> list[str]:
    """Distances with their intervals; nothing where no evaluation has any."""
    measured = [arm for arm in arms if has_figures(arm)]
    return [markdown_table(*figures_table_rows(measured)), FOOTNOTE] if measured else []


def changes_section(arms: Sequence[Arm], base: Arm) -> list[str]:
    """Changes of the other arms from `base`, paired; nothing where none is comparable."""
    others = [arm for arm in arms if arm is not base and comparable(arm, base)]
    return [markdown_table(*changes_table_rows(others, base))] if others else []


def quality_table(arms: Sequence[Arm]) -> str:
    header = ("arm", "order", "steps", "guidance", "seeds", "FD-eval", "FD-rec", "KID x1000", "precision", "recall",
              "agreement", "of real", "queries", "policy queries", "pictures/s")  # fmt: skip
    return markdown_table(header, [_quality_row(arm) for arm in arms])


def _quality_row(arm: Arm) -> list[str]:
    settings = arm.first["settings"]
    kid = statistics.fmean(report["distances"]["kid"] for report in arm.reports)
    error = statistics.fmean(report["distances"]["kid_standard_error"] for report in arm.reports)
    return [
        arm.label,
        arm.order,
        f"{arm.mean('cost', 'mean_steps'):.1f}",
        guidance_text(settings["sampling"]),
        str(len(arm.reports)),
        arm.cell("distances", "fd_eval"),
        arm.cell("fd_to_reconstructions"),
        f"{1000 * kid:.2f} ± {1000 * error:.2f}",
        arm.cell("distances", "precision", digits=3),
        arm.cell("distances", "recall", digits=3),
        arm.cell("agreement", "mean", digits=3),
        arm.cell("relative_agreement", "mean", digits=3),
        f"{arm.mean('cost', 'query_evaluations'):.0f}",
        f"{arm.mean('cost', 'policy_evaluations'):.0f}",
        f"{arm.mean('cost', 'pictures_per_second'):.1f}",
    ]


def agreement_table(arms: Sequence[Arm]) -> str:
    """Per attribute: what is read off generated pictures, off reconstructions and off the real ones."""
    names = list(arms[0].first["floors"]["real_agreement"])
    rows = [[arm.name, *(arm.cell("agreement", name, digits=3) for name in names)] for arm in arms]
    for title, key in (("reconstructions", "reconstruction_agreement"), ("real pictures", "real_agreement")):
        rows.append([f"*{title}*", *(f"{arms[0].first['floors'][key][name]:.3f}" for name in names)])
    return markdown_table(("arm", *names), rows)


def copying_table(arms: Sequence[Arm]) -> str:
    header = (
        "arm",
        "bits a token",
        "feature distance ratio",
        "closer, features",
        "pixel distance ratio",
        "closer, pixels",
    )
    rows = [
        [
            arm.name,
            arm.cell("bits_per_token", digits=3),
            *(
                arm.cell("memorisation", space, figure, digits=3)
                for space in ("features", "pixels")
                for figure in ("distance_ratio", "share_closer")
            ),
        ]
        for arm in arms
    ]
    return markdown_table(header, rows)


def floors_table(arm: Arm) -> str:
    names = {"halves": "real: two halves", "training": "real: training", "reconstruction": "reconstructions"}
    rows: list[list[str]] = []
    for key, title in names.items():
        values = arm.first["floors"][key]
        kid = f"{1000 * values['kid']:.2f} ± {1000 * values['kid_standard_error']:.2f}"
        shares = [f"{values[name]:.3f}" for name in ("precision", "recall")]
        rows.append([title, str(values["num_samples"]), f"{values['fd_eval']:.2f}", kid, *shares])
    reconstructed = f"{arm.first['floors']['training_reconstructions']:.2f}"
    table = markdown_table(("pictures", "number", "FD-eval", "KID x1000", "precision", "recall"), rows)
    return f"{table}\n\nFD-rec of reconstructed training pictures: {reconstructed}."
