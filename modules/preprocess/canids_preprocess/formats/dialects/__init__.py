"""Dialects: logs as tools write them and as data sets are published, each by the name that a manifest uses."""

from canids_preprocess.formats.base import Format
from canids_preprocess.formats.dialects.asc import ASC
from canids_preprocess.formats.dialects.console import CANDUMP_CONSOLE
from canids_preprocess.formats.dialects.lines import BUSMASTER, CRTD, CRYSYS
from canids_preprocess.formats.dialects.tables import CICIOV, DAGA, GVRET, HCRL_CHALLENGE, TAB_LOG

DIALECTS: dict[str, Format] = {
    "asc": ASC,
    "candump-console": CANDUMP_CONSOLE,
    "gvret": GVRET,
    "crtd": CRTD,
    "busmaster": BUSMASTER,
    "crysys": CRYSYS,
    "tab-log": TAB_LOG,
    "hcrl-challenge": HCRL_CHALLENGE,
    "daga": DAGA,
    "ciciov": CICIOV,
}
