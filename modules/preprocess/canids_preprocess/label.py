"""Label a capture by the intervals of a file, and look whether they fit.

    python -m canids_preprocess.label data/mycar/drive.log labels.csv
    python -m canids_preprocess.label data/mycar/drive.log

Writes the intervals of an attack, `attacked`, into the capture's entry of the manifest (the nearest `manifest.yaml` above the capture)
and changes nothing else in it but `content: unlabelled`. A picture beside the capture, `drive.log.attacked.png`, shows how often each
arbitration ID is sent over time, and the intervals on it. Without a file of labels there is only the picture, with the intervals that
the manifest has: so attacks can be found by eye.

A file of labels is CSV of start, end and perhaps kind, with a header or without, or JSON: a list of such, or ROAD's metadata. Times are
seconds since the capture's first frame, or the capture's own.
"""

import argparse
import sys
from pathlib import Path

from canids_preprocess.drafting import labelling
from canids_preprocess.drafting.id_rates import IdRates, picture
from canids_preprocess.drafting.label_files import read_labels
from canids_preprocess.drafting.names import kind_of_attack
from canids_preprocess.drafting.text import read_text, with_keys
from canids_preprocess.formats import FORMATS, recognise
from canids_preprocess.formats.table.reader import in_file_unit
from canids_preprocess.timestamps import in_seconds
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError
from canids_shared.files import write_text

MANIFEST = "manifest.yaml"


def _listed(capture: Path, place: Path | None, name: str | None) -> tuple[Path, manifest.Capture]:
    """The manifest that lists a capture, and its entry in it, of several that of this name. Raises `CanidsError` if there is none."""
    if not capture.is_file():
        raise CanidsError(f"{capture}: no such file")
    above = [place] if place else [folder / MANIFEST for folder in capture.absolute().parents]
    for path in above:
        if not place and not path.exists():
            continue
        listed = [
            c for c in manifest.read(path, path.parent).values() if c.path and c.path.resolve() == capture.resolve()
        ]
        if listed and name is not None and name not in [c.name for c in listed]:
            raise CanidsError(f"{path}: {capture} has no entry '{name}', but {', '.join(c.name for c in listed)}")
        if listed and (one := next((c for c in listed if name in (None, c.name)), None)):
            if name is None and len(listed) > 1:
                names = ", ".join(c.name for c in listed)
                raise CanidsError(f"{path}: {capture} has several entries ({names}); say which with --name")
            return path, one
        if place:
            break
    where = place or f"no {MANIFEST} above it"
    raise CanidsError(
        f"{capture}: {where} lists it; draft one (python -m canids_preprocess.draft FOLDER), or name it with --manifest"
        if not place
        else f"{capture}: {place} does not list it; python -m canids_preprocess.draft {place.parent} adds it"
    )


def _rates(one: manifest.Capture) -> IdRates:
    assert one.path
    form = FORMATS[recognise(one.path) if one.format in ("auto", "road") else one.format]
    entry = {**vars(one), "content": "unlabelled", "attacked": ()}
    unit = in_file_unit(one.table) if one.table else one.timestamp_unit
    # Of all buses: intervals count from the first frame of the file.
    return IdRates.of(in_seconds(one.path, form, entry, "s" if one.assume_rate else unit))


def label(
    capture: Path, labels: Path | None, place: Path | None, times: str, drawn: Path | None, name: str | None = None
) -> str:
    """Label a capture in its manifest and draw the picture; what was done, in one line.

    Args:
        capture: the raw file.
        labels: the file of labels; None: only the picture.
        place: the manifest; None: the nearest one above the capture that lists it.
        times: one of `canids_preprocess.drafting.labelling.TIMES`.
        drawn: where to draw the picture; None: beside the capture.
        name: of the entry, where the capture has several, one for each bus.

    Raises `CanidsError` if the labels cannot be read, do not lie in the capture, or contradict what the manifest has.
    """
    place, one = _listed(capture, place, name)
    if labels and one.attacked:
        raise CanidsError(f"{place}: captures.{one.name} has 'attacked' intervals; remove them there to import others")
    if labels and one.content == "attack-free":
        raise CanidsError(
            f"{place}: captures.{one.name} is called attack-free; make that 'unlabelled' to import attacks"
        )
    rates = _rates(one)
    attacked = [list(interval) for interval in one.attacked]
    attack, done = one.attack, f"{len(attacked)} intervals in {place}, captures.{one.name}"
    if labels:
        attacked = labelling.since_first(read_labels(labels, labelling.base_of(capture)), rates, times)
        keys = labelling.keys_of(attacked, attack, kind_of_attack(Path(capture.name)))
        replaced = {"content": "labelled"} if one.content != "labelled" else {}
        text = with_keys(place, read_text(place), one.name, keys, replaced)
        attacked, attack = keys["attacked"], attack or keys["attack"]
    picture(drawn or labelling.picture_of(capture), capture.name, rates, attacked, attack)
    if labels:
        write_text(place, text)
        scored = "; its role is 'to_score': make it train or a test scenario" if one.role == "to_score" else ""
        done = f"{len(attacked)} intervals written to {place}, captures.{one.name}{scored}"
    return f"{done}; picture: {drawn or labelling.picture_of(capture)}"


def main() -> None:
    """Label a capture, or exit with one line that gives the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, help="the raw capture, listed in a manifest")
    parser.add_argument(
        "labels", type=Path, nargs="?", help="file of labels, CSV or JSON; without it only the picture is drawn"
    )
    parser.add_argument(
        "--manifest", type=Path, help="the manifest; by default the nearest one above the capture that lists it"
    )
    parser.add_argument(
        "--name", help="the capture's entry in the manifest, where a log of several buses has one for each"
    )
    parser.add_argument(
        "--times",
        choices=labelling.TIMES,
        default="auto",
        help="relative: seconds since the first frame; absolute: the capture's own times; auto: the one that fits",
    )
    parser.add_argument(
        "--plot", type=Path, help="the picture, .png or .svg; by default CAPTURE.attacked.png beside the capture"
    )
    options = parser.parse_args()
    try:
        print(label(options.capture, options.labels, options.manifest, options.times, options.plot, options.name))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
