"""What there was to learn from, under which protocol, and what test shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koser.reporting import figures
from koser.reporting.language import Phrases
from koser.reporting.sections.tables import Table, make_table

Rows = list[tuple[str, str]]


def protocol_rows(metrics: Mapping[str, Any], t: Phrases) -> Rows:
    """The protocol card."""
    protocol = metrics["protocol"]
    options = {key: value for key, value in protocol["options"].items() if value is not None}
    name = protocol["protocol"]
    plain, _, enrolled = name.partition(" ")
    meanings = [t["protocols"].get(plain.partition(":")[0], "")]
    if enrolled:  # as in speaker+script enrolled(3)
        meanings.append(t["protocols"].get(enrolled.partition("(")[0], ""))
    meaning = "; ".join(filter(None, meanings))
    return [
        (t["protocol.protocol"], f"{name}: {meaning}" if meaning else name),
        (t["protocol.kept_apart"], t.enumerated(protocol["grouping"], "clusters")),
        (t["protocol.n_folds"], str(protocol["n_folds"])),
        (t["protocol.split_seed"], figures.count(protocol["seed"])),
        (t["protocol.hash"], protocol["hash"]),
        (
            t["protocol.options"],
            ", ".join(f"{key} = {value}" for key, value in options.items()) or figures.MISSING,
        ),
        (t["protocol.training_seeds"], ", ".join(str(seed) for seed in metrics["seeds"])),
    ]


def shared_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """What test shares with train and val."""
    rows = []
    for leak in metrics.get("leaks", ()):
        if leak["n_shared"] is None:
            found, tested = t["shared.unknown"], figures.MISSING
        elif not leak["n_shared"]:
            found, tested = t["shared.none"], "0"
        else:
            found, tested = f"{leak['n_shared']:,}", f"{leak['n_utterances']:,}"
        rows.append([t[f"shared.{leak['kind']}"], found, tested])
    return make_table([t["shared.kind"], t["shared.n"], t["shared.tested"]], rows)


def data_rows(card: Mapping[str, Any], t: Phrases) -> Rows:
    """The data card: where the utterances come from, how many, and what was left out."""
    durations = card["durations"]
    rows = [
        (t["data.corpus"], ", ".join(card["corpora"])),
        (t["data.language"], ", ".join(card["languages"]) or figures.MISSING),
        (t["data.adapter"], card["adapter"]),
        # One for each of several corpora.
        (t["data.labels_from"], "; ".join(map(t.said, card["label_policy"].split("; ")))),
        (
            t["data.grouping"],
            t.named("clusters", card["grouping"]) if card["grouping"] else t["data.no_grouping"],
        ),
        (t["data.n_speakers"], figures.count(card["n_speakers"])),
        (t["data.n_utterances"], f"{card['n_utterances']:,}"),
        (
            t["data.duration"],
            t["data.durations"].format(
                hours=f"{durations['hours']:.2f}",
                mean=f"{durations['mean']:.2f}",
                shortest=f"{durations['shortest']:.2f}",
                longest=f"{durations['longest']:.2f}",
                long=f"{100 * durations['share_long']:.0f}",
            ),
        ),
        (t["data.rows_in"], f"{card['n_rows_in']:,}"),
    ]
    rows += [
        (t["data.left_out"].format(reason=t.said(reason, "reasons")), f"{n:,}")
        for reason, n in card["left_out"].items()
    ]
    if not card["left_out"]:
        rows.append((t["data.nothing_left_out"], "0"))
    rows.append((t["data.unlisted"], f"{card['n_unlisted']:,}"))
    for key in ("formats", "per_release", "per_gender"):
        if card[key]:
            counts = (f"{t.said(name, 'subgroups.values')}: {n:,}" for name, n in card[key].items())
            rows.append((t[f"data.{key}"], ", ".join(counts)))
    for each in card["agreement"]:
        name = t["data.agreement"].format(part=t.named("parts", each["part"]))
        basis = t["data.agreement_basis"].format(n=f"{each['n_utterances']:,}", k=each["n_raters"])
        rows.append((name, f"{figures.score(each['kappa'])} ({basis})"))
    return rows


def part_table(card: Mapping[str, Any], t: Phrases) -> Table | None:
    """Size of every part, and of every label in it."""
    parts = card["parts"]
    rows = [
        [t["data.n_utterances"], *(figures.count(part["n"]) for part in parts)],
        [t["data.n_speakers"], *(figures.count(part["n_speakers"]) for part in parts)],
        [t["data.hours"], *(f"{part['hours']:.2f}" for part in parts)],
        *(
            [t.label(label), *(figures.count(part["per_label"][label]) for part in parts)]
            for label in card["per_label"]
        ),
    ]
    return make_table([t["data.part"], *(t.named("parts", part["part"]) for part in parts)], rows)


def fact_rows(values: Mapping[str, Any], t: Phrases) -> Rows:
    """What a run says of its features: `flat_rows` with names and sentences in the language."""
    return [
        (
            ".".join(t.named("facts", part) for part in name.split(".")),
            "; ".join(text for text, _ in t.notes([value])),
        )
        for name, value in flat_rows(values)
    ]


def flat_rows(values: Mapping[str, Any], prefix: str = "") -> Rows:
    """Names and values of nested `values`, in their order."""
    rows: Rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat_rows(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", figures.MISSING if value is None else str(value)))
    return rows
