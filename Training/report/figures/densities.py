"""HU densities of what every reader (HC) and some readers (LC) include, real against predicted (UGS-Net, Fig. 1B, 8).

HU are integers, so the Kolmogorov-Smirnov statistic and the Wasserstein distance of two samples follow exactly from
their histograms of 1 HU; a resample of patients is then a weighted sum of histograms, not of pixels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..store import Experiment, Record, Store
from . import style
from .cases import Case, load_cases, network_words, profile_words, uncertainty_row
from .drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STORED_STEP_HU = 5.2  # LIDC cubes were stored in 8 bits over [-1024, 300] HU
CLIPPED_AT_HU = 300
LOWEST_HU, HIGHEST_HU = -1100, 400
SETS = ("real HC", "predicted HC", "real LC", "predicted LC")
PAIRS = (
    ("HC, real and predicted", "real HC", "predicted HC"),
    ("LC, real and predicted", "real LC", "predicted LC"),
    ("HC and LC, real", "real HC", "real LC"),
    ("HC and LC, predicted", "predicted HC", "predicted LC"),
)


def regions(case: Case) -> dict[str, np.ndarray]:
    """Masks (H, W) of the four sets: readers' intersection and the rest of their union, and the predicted ones."""
    hc = case.maps["intersection"] >= 0.5
    return {
        "real HC": case.all_readers,
        "real LC": case.any_reader & ~case.all_readers,
        "predicted HC": hc,
        "predicted LC": (case.maps["union"] >= 0.5) & ~hc,
    }


def histograms(cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """{set: (nodules, HU bins of 1 from LOWEST_HU to HIGHEST_HU)}; HU outside go into the end bins."""
    count = HIGHEST_HU - LOWEST_HU + 1
    out = {name: np.zeros((len(cases), count), np.int64) for name in SETS}
    for number, case in enumerate(cases):
        index = np.clip(case.hu.astype(int), LOWEST_HU, HIGHEST_HU) - LOWEST_HU
        for name, mask in regions(case).items():
            out[name][number] = np.bincount(index[mask], minlength=count)
    return out


def distances(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(KS statistic, Wasserstein distance in HU) of histograms (..., bins) of 1 HU; NaN where one is empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (np.cumsum(h, -1) / np.sum(h, -1, keepdims=True) for h in (first, second))
    return np.abs(a - b).max(-1), np.abs(a - b).sum(-1)


def kernel_density(histogram: np.ndarray, bandwidth: float) -> np.ndarray:
    """Gaussian kernel density (1/HU) at the bins' HU of a histogram (bins,) of 1 HU; `bandwidth` is the sd in HU."""
    smooth = gaussian_filter1d(histogram.astype(float), bandwidth, mode="constant", truncate=6)
    return smooth / max(histogram.sum(), 1)


def bandwidth_hu(pooled: dict[str, np.ndarray]) -> float:
    """Scott's bandwidth of the widest of the four sets, but never finer than the steps that HU were stored in."""
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    found = [STORED_STEP_HU]
    for histogram in pooled.values():
        n = histogram.sum()
        if n > 1:
            mean = (histogram * hu).sum() / n
            found.append(float(np.sqrt((histogram * (hu - mean) ** 2).sum() / (n - 1)) * n**-0.2))
    return max(found)


def _resamples(patients: Sequence[str], repeats: int = 1000, seed: int = 0) -> np.ndarray:
    """(repeats, nodules) how often each nodule is in a resample of the patients, with replacement."""
    names, of = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats)
    return drawn[:, of]


def compare(counts: dict[str, np.ndarray], patients: Sequence[str]) -> list[Record]:
    """Rows of distances between the pooled sets, with 95 % intervals over 1000 resamples of the patients."""
    weights = _resamples(patients).astype(np.float32)
    pooled = {name: counts[name].sum(0) for name in SETS}
    resampled = {name: weights @ counts[name].astype(np.float32) for name in SETS}
    rows = []
    for label, first, second in PAIRS:
        row: Record = {"compared": label}
        point = distances(pooled[first], pooled[second])
        spread = distances(resampled[first], resampled[second])
        for key, value, values in zip(("ks", "wasserstein_hu"), point, spread, strict=True):
            values = values[np.isfinite(values)]  # a resample may hold no nodule with a pixel in the set
            known = bool(np.isfinite(value)) and len(values) > 0
            row[key] = round(float(value), 4) if known else None
            row[f"{key}_95"] = [round(float(v), 4) for v in np.quantile(values, (0.025, 0.975))] if known else None
        rows.append({**row, "pixels": [int(pooled[first].sum()), int(pooled[second].sum())]})
    return rows


def nodule_means(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{set: mean HU a nodule (N,)}, NaN where a nodule has no pixel in the set."""
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: (h * hu).sum(1) / h.sum(1) for name, h in counts.items()}


def paired(means: dict[str, np.ndarray]) -> list[Record]:
    """Predicted minus real mean HU of nodules that have both: n, bias, sd, 95 % limits of agreement, correlation."""
    rows = []
    for region in ("HC", "LC"):
        real, predicted = means[f"real {region}"], means[f"predicted {region}"]
        both = np.isfinite(real) & np.isfinite(predicted)
        n = int(both.sum())
        row: Record = {"region": region, "nodules": n, "only_real": int((np.isfinite(real) & ~both).sum())}
        if n > 2:
            difference = (predicted - real)[both]
            bias, sd = float(difference.mean()), float(difference.std(ddof=1))
            row |= {"bias_hu": round(bias, 2), "sd_hu": round(sd, 2)}
            row["limits_hu"] = [round(bias - 1.96 * sd, 2), round(bias + 1.96 * sd, 2)]
            row["correlation"] = round(float(np.corrcoef(real[both], predicted[both])[0, 1]), 4)
        rows.append(row)
    return rows


def densities(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """One `Drawn`: the densities, and mean HU a nodule real against predicted, on every test nodule of every fold."""
    row = uncertainty_row(experiment, jobs)
    if row is None:
        return []
    by_fold = jobs.row_jobs(row)
    cases = [case for job in by_fold.values() for case in load_cases(job, jobs)]
    counts, patients = histograms(cases), [case.patient_id for case in cases]
    pooled = {name: h.sum(0) for name, h in counts.items()}
    bandwidth, means = bandwidth_hu(pooled), nodule_means(counts)
    table, pairs = compare(counts, patients), paired(means)
    pixels = ", ".join(f"{int(pooled[name].sum()):,} {name}" for name in SETS)
    folds = ", ".join(str(fold) for fold in by_fold)
    fold_words = f"test fold {folds}" if len(by_fold) == 1 else f"test folds {folds}"
    network = network_words(jobs.manifest(next(iter(by_fold.values()))))
    caption = (
        "HU of the pixels that every reader includes (HC) and that some include (LC), and of those that "
        f"{row['label']} predicts (HC: intersection at least 0.5; LC: union at least 0.5 without HC). One slice a "
        f"nodule on the network's grid, all {len(cases)} test nodules of {len(set(patients))} patients, {fold_words}; "
        f"pixels: {pixels}. Gaussian kernel, bandwidth {bandwidth:.1f} HU for every curve. These HU were stored in 8 "
        f"bits, in steps of {STORED_STEP_HU} HU, and clipped above {CLIPPED_AT_HU}: what lies there was denser. Large "
        "nodules weigh more in a and b; in c each nodule is one point, without nodules that have no predicted pixel. "
        f"Intervals of the table: 95 %, 1000 resamples of the patients. Network: {network}.{profile_words(experiment)}"
    )
    figure = _draw(pooled, means, table, pairs, bandwidth)
    data = {
        "table": table,
        "per_nodule": pairs,
        "nodules": len(cases),
        "patients": len(set(patients)),
        "folds": [int(fold) for fold in by_fold],
        "bandwidth_hu": round(bandwidth, 2),
    }
    return [Drawn("densities", "HU densities of HC and LC, real and predicted", caption, figure, data)]


def _curve(
    axes: "Axes",
    histogram: np.ndarray,
    bandwidth: float,
    color: str,
    line: style.LineStyle,
    label: str,
    fill: float = 0.0,
) -> None:
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    density = 1000 * kernel_density(histogram, bandwidth)
    axes.plot(hu, density, color=color, linestyle=line, linewidth=1.8, label=label)
    if fill:
        axes.fill_between(hu, density, color=color, alpha=fill, linewidth=0)


def _draw(
    pooled: dict[str, np.ndarray],
    means: dict[str, np.ndarray],
    table: Sequence[Record],
    pairs: Sequence[Record],
    bandwidth: float,
) -> "Figure":
    figure = style.new_figure(style.PAGE_WIDTH, 4.3)
    axes = [figure.add_axes((x, 0.135, 0.27, 0.76)) for x in (0.052, 0.376, 0.722)]
    colors = {"HC": style.HC, "LC": style.LC}
    for region, color in colors.items():
        _curve(axes[0], pooled[f"real {region}"], bandwidth, color, "solid", f"{region}, readers", 0.18)
        _curve(axes[1], pooled[f"real {region}"], bandwidth, color, "solid", f"{region}, readers")
        _curve(axes[1], pooled[f"predicted {region}"], bandwidth, color, (0, (4, 2)), f"{region}, predicted", 0.12)
    top = 1.28 * max(np.max(line.get_ydata()) for a in axes[:2] for line in a.lines)
    for panel in axes[:2]:
        panel.set_xlim(-1050, 390)
        panel.set_ylim(0, top)
        panel.axvline(CLIPPED_AT_HU, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)))
        panel.text(CLIPPED_AT_HU + 14, 0.99 * top, "clipped", fontsize=8, color="#777777", rotation=90, va="top")
        panel.set_xlabel("HU")
    axes[0].set_ylabel("density, 1/1000 HU")
    by_label = {row["compared"]: row for row in table}
    for panel, shown in ((axes[0], PAIRS[2:3]), (axes[1], PAIRS[:2])):
        rows = [by_label[pair[0]] for pair in shown if by_label[pair[0]]["ks"] is not None]
        lines = [
            f"{row['compared'].split(',')[0]}: KS {row['ks']:.3f}, Wasserstein {row['wasserstein_hu']:.0f} HU"
            for row in rows
        ]
        panel.text(0.03, 0.80, "\n".join(lines), transform=panel.transAxes, fontsize=8.5, va="top", color=style.MUTED)
        panel.legend(loc="upper left", fontsize=8.5, frameon=False, ncols=2, handlelength=2.2, columnspacing=1.2)
    _scatter(axes[2], means, pairs, colors)
    for panel, letter, title in zip(
        axes, "abc", ("readers", "readers and predicted", "mean of each nodule"), strict=True
    ):
        panel.set_title(f"{letter}   {title}", loc="left", fontsize=10.5, color=style.TEXT)
        panel.tick_params(labelsize=8.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure


def _scatter(axes: "Axes", means: dict[str, np.ndarray], pairs: Sequence[Record], colors: dict[str, str]) -> None:
    words = {row["region"]: row for row in pairs}
    shown = [means[f"{kind} {region}"] for kind in ("real", "predicted") for region in colors]
    finite = np.concatenate([values[np.isfinite(values)] for values in shown] or [np.zeros(1)])
    low, high = (finite.min() - 40, finite.max() + 40) if len(finite) else (-1000, 300)
    axes.plot([low, high], [low, high], color="#999999", linewidth=0.8)
    for region, marker in (("LC", "^"), ("HC", "o")):
        row = words[region]
        label = f"{region}: {row['nodules']} nodules"
        if "bias_hu" in row:
            label += f"\nbias {row['bias_hu']:+.0f} HU, sd {row['sd_hu']:.0f}".replace("-", "−")
        axes.scatter(
            means[f"real {region}"],
            means[f"predicted {region}"],
            s=13,
            marker=marker,
            color=colors[region],
            alpha=0.6,
            linewidths=0,
            label=label,
        )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("readers, mean HU")
    axes.set_ylabel("predicted, mean HU")
    axes.legend(loc="upper left", fontsize=8.5, frameon=False, handletextpad=0.2)
