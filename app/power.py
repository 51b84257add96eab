"""The power probe on a bundle and a folder or zip of benign images; no gateway is needed, none disturbed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from app.archive import Archive, ArchiveError
from app.assembly import build_detectors, choose_device
from app.client import as_archive
from app.images import Decoder, ImageError
from app.labels import LabelError, Labels
from app.settings import Settings
from detectors.base import Detector
from detectors.power_probe import MOST_CALIBRATING, MOST_IMPLANTING, Tell, probe_power
from detectors.power_report import PowerReport
from models.loading import load_network
from models.torch_module import TorchClassifier

__all__ = ["power_table", "probe_bundle", "read_benign"]

ENOUGH = 4 * (MOST_IMPLANTING + MOST_CALIBRATING)  # images; a budget below 0.1 % can make use of more


def probe_bundle(
    settings: Settings, benign: Path, *, targets: Sequence[int] | None, seconds: float, tell: Tell
) -> PowerReport:
    """Probe the detectors of `settings` on its bundle with the images in `benign`; its weights are only read.

    `benign` is a folder or zip with one folder per class. Raises a `ModelError`, a `DetectorError`, or
    `ValueError` for images that cannot be used.
    """
    classifier = load_network(settings.bundle, choose_device(settings.device))
    images, labels = read_benign(benign, settings, classifier)

    def guard(network: nn.Module) -> Sequence[Detector]:
        return build_detectors(TorchClassifier(network, classifier.info, classifier.device), settings)

    return probe_power(
        classifier.network, images, labels, guard,
        alpha=settings.alpha, targets=targets, seconds=seconds, tell=tell,
    )  # fmt: skip


def read_benign(source: Path, settings: Settings, classifier: TorchClassifier) -> tuple[Tensor, Tensor]:
    """At most `ENOUGH` of the images in `source`, drawn at random, always the same.

    (m, C, H, W) float32 in [0, 1] on the classifier's device, and their labels (m,). Unreadable images are
    left out; raises `ValueError` where nothing usable remains.
    """
    info = classifier.info
    decode = Decoder(
        info.size, info.channels, info.interpolation, settings.image_formats,
        settings.max_image_bytes, settings.max_pixels,
    )  # fmt: skip
    pixels, labels = [], []
    try:
        with as_archive(source) as path, path.open("rb") as file:
            archive = Archive(
                file,
                Labels(info.labels, info.num_classes).index,
                max_entries=settings.max_archive_entries,
                max_bytes=settings.max_archive_bytes,
                max_entry_bytes=settings.max_image_bytes,
            )
            rng = np.random.default_rng(0)
            chosen = set(rng.permutation(len(archive))[:ENOUGH].tolist())
            for number, entry in enumerate(archive):
                if number not in chosen:
                    continue
                try:
                    pixels.append(decode(entry.data))
                except ImageError:
                    continue
                labels.append(entry.label)
    except (ArchiveError, LabelError) as error:
        raise ValueError(f"{source}: {error}") from error
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from error
    if not pixels:
        raise ValueError(f"{source} holds no readable images")
    order = rng.permutation(len(pixels))  # an archive has them in an order
    images = torch.from_numpy(np.stack(pixels)[order]).to(classifier.device)
    return images, torch.tensor(labels)[torch.from_numpy(order)]


def power_table(report: PowerReport) -> Table:
    """One line per implanted backdoor."""
    names = [name for probe in report.judged[:1] for name in probe.detectors]
    table = Table("trigger", "target", "success", "clean answers kept", "caught by all")
    for name in names:
        table.add_column(f"{name}: TPR, AUROC")
    for probe in report.probes:
        caught = "no backdoor held" if probe.caught is None else f"{probe.caught:.1%}"
        powers = [probe.detectors[name] for name in names if name in probe.detectors]
        cells = [f"{power.tpr:.1%}, {power.auroc:.3f}" for power in powers]
        table.add_row(
            probe.trigger, f"{probe.target}", f"{probe.success:.1%}", f"{probe.agreement:.1%}", caught, *cells
        )
    for kind, target in report.left_out:
        table.add_row(kind, f"{target}", "", "", "no time left")
    return table
