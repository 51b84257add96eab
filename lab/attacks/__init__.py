"""Backdoor attacks, one paper a file. `ATTACKS` holds them by the name that a bundle's record uses."""

from lab.attacks.adap_blend import AdapBlend
from lab.attacks.adap_patch import AdapPatch
from lab.attacks.badnets import BadNets
from lab.attacks.base import Attack, Poisoned
from lab.attacks.batt import Batt
from lab.attacks.blend import Blend
from lab.attacks.bpp import Bpp
from lab.attacks.iad import Iad
from lab.attacks.issba import Issba
from lab.attacks.label_consistent import LabelConsistent
from lab.attacks.narcissus import Narcissus
from lab.attacks.physical import PhysicalBA
from lab.attacks.sra import Sra
from lab.attacks.tact import TaCT
from lab.attacks.tuap import Tuap
from lab.attacks.wanet import WaNet

__all__ = ["ATTACKS", "Attack", "Poisoned"]

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        BadNets,
        Blend,
        WaNet,
        Batt,
        TaCT,
        AdapBlend,
        AdapPatch,
        PhysicalBA,
        Bpp,
        LabelConsistent,
        Iad,
        Issba,
        Narcissus,
        Sra,
        Tuap,
    )
}
