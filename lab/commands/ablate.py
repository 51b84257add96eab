"""`triggerwall lab ablate`: what each setting of the papers' detectors is worth."""

from lab.ablation import ablate, ablation_table
from lab.commands.common import (
    DEFAULT_DEVICE,
    Bundle,
    Calibration,
    Channels,
    Data,
    Device,
    Images,
    Out,
    Seed,
    console,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.judge import open_study
from lab.sources import open_split

__all__ = ["ablate_command"]


def ablate_command(
    bundle: Bundle,
    data: Data,
    calibration: Calibration = 1000,
    images: Images = 1000,
    channels: Channels = 3,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Vary ω, n, ξ, T, the scale set and the calibration's size; measures images once for each ω."""
    with told_plainly():
        where = open_device(device)
        test = open_split(data, "test", channels, warn)
        rows = ablate(open_study(bundle, test, calibration, images, seed, where, ["spc"]))
        console.print(ablation_table(rows))
        write_json(out, rows)
