"""The report of a run: one HTML file that needs no network and no other file, readable in dark and light."""

from html import escape
from pathlib import Path

from engram.files import replace_text
from engram.provenance import short
from engram.report import parts, plots, words
from engram.report.checked import Json
from engram.report.run import Run, read
from engram.report.theme import colour, label, percent, svg

PROVENANCE = (
    "commit", "seeds", "machine", "versions", "training_time", "wall_seconds", "frames_per_second_train", "notes",
)  # fmt: skip
VIDEO_BYTES, ATTENTION_BYTES = 2_900_000, 600_000  # of mp4; with base64 the page stays under 5 MB


def write(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run directory to `out` (default RUN/report.html) and return its path.

    Parts that the run does not have are named in one line instead. ValueError where a file is malformed, or
    there is neither a summary nor an evaluation nor a training to report.
    """
    found = read(Path(run))
    target = Path(out) if out else found.path / "report.html"
    replace_text(target, render(found))
    return target


def render(run: Run) -> str:
    """The whole page as text."""
    charts = [_success(run), _interventions(run), _delay(run), _learning(run), _drift(run), _attention(run)]
    body = [
        _head(run),
        _videos(run),
        f'<div class="two">{"".join(charts)}</div>',
        _episodes(run),
        _provenance(run),
        _repeat(run),
    ]
    return parts.document(f"{words.headline(run)} · {run.name}", "".join(body))


def _head(run: Run) -> str:
    tiles = [(percent(r["success"]), f"{label(name)}, {words.condition(run)}") for name, r in run.policies.items()]
    tiles += [(percent(run.chance), "chance: the expert that never saw the cue")] if run.chance is not None else []
    changed: Json = run.summary.get("interventions") or {}
    if "zero" in changed:
        tiles.append((percent(changed["zero"]["success"]), f"{label(run.intervened)} with its memory zeroed"))
    if changed.get("swap", {}).get("donor_choice") is not None:
        tiles.append((percent(changed["swap"]["donor_choice"]), "choose the donor's colour after memories are swapped"))
    names = list(run.policies)
    tints = [colour(name, names) for name in names] + ["transparent"] * len(tiles)
    boxes = "".join(
        f'<div style="border-top-color:{tint}"><b>{value}</b><span>{escape(text)}</span></div>'
        for tint, (value, text) in zip(tints, tiles, strict=False)
    )
    tiled = f'<div class="tiles">{boxes}</div>' if boxes else ""
    return (
        f'<header><p class="eyebrow">Engram report · {escape(run.name)}{_when(run)}</p>'
        f"<h1>{escape(words.headline(run))}</h1>"
        f'<p class="lead">{escape(words.lead(run))}</p><p class="note">{escape(words.paired(run))}</p>'
        f"{tiled}</header>"
    )


def _when(run: Run) -> str:
    seconds, sha = run.summary.get("wall_seconds"), run.summary.get("commit")
    made = f" · made in {seconds / 60:.1f} minutes" if seconds else ""
    return made + (f" · commit {escape(short(sha))}" if sha else "")


def _videos(run: Run) -> str:
    by_seed: dict[int, list[Json]] = {}
    for video in run.videos:
        by_seed.setdefault(video["seed"], []).append(video)
    both = {len(clips) for clips in by_seed.values()} == {2}
    title = "The same episodes, seen by both" if both else "Films"
    if not run.videos:
        return parts.absent(title, "This run recorded no videos of episodes with memory left alone.")
    kept = parts.fitting({str(seed): clips for seed, clips in by_seed.items()}, VIDEO_BYTES)
    pairs = "".join(_pair(run, seed, clips) for seed, clips in by_seed.items() if str(seed) in kept)
    trailer = parts.left_out([f"seed {seed}" for seed in by_seed if str(seed) not in kept])
    return parts.section(title, f'{parts.player()}<div class="pairs">{pairs}</div>{trailer}')


def _pair(run: Run, seed: int, clips: list[Json]) -> str:
    ordered = sorted(clips, key=lambda clip: (clip["policy"] != "memoryless", clip["policy"]))
    answer = f" · the cue was {escape(str(clips[0]['answer']))}" if clips[0].get("answer") else ""
    onset = run.onset(seed)
    when = f" · the choice begins at {onset:.1f} s" if onset is not None else ""
    single = " single" if len(clips) == 1 else ""
    inner = "".join(_clip(clip) for clip in ordered)
    return f'<div class="pair{single}"><p>Episode with seed {seed}{answer}{when}</p><div>{inner}</div></div>'


def _clip(clip: Json) -> str:
    choice = f"chose {clip['choice']}" if clip.get("choice") else "chose nothing"
    good = bool(clip["success"])
    verdict = f'<span class="{"good" if good else "bad"}">{"✓" if good else "✗"} {escape(choice)}</span>'
    outcome = "succeeds" if good else "fails"
    alt = f"Video: {label(clip['policy'])} on seed {clip['seed']}, {outcome}, {choice}"
    return (
        f'<figure class="clip">{parts.video(clip["path"], alt)}'
        f"<figcaption><strong>{escape(label(clip['policy']))}</strong> {verdict}</figcaption></figure>"
    )


def _success(run: Run) -> str:
    if not run.policies:
        return parts.absent("Success", "This run evaluated no policy with its memory left alone.")
    alt = words.success_alt(run)
    drawing = svg(lambda ax, theme: plots.success(ax, theme, run), 5.2, 3.3, alt)
    caption = f"Bars: share of episodes. Lines: Wilson 95 % intervals. {words.chance(run)}"
    return parts.section("Success", parts.plot(drawing, caption))


def _interventions(run: Run) -> str:
    title = "What memory is worth"
    if not run.summary.get("interventions"):
        return parts.absent(title, "This run tried no interventions on memory in this task.")
    height = 1.0 + 0.34 * len(plots.intervention_rows(run))
    drawing = svg(lambda ax, theme: plots.interventions(ax, theme, run), 5.2, height, words.intervention_alt(run))
    caption = (
        f"{label(run.intervened)}: same weights, same kind of episodes; only the carried memory is changed, when the "
        f"choice begins unless a tick is named. {words.chance(run)}"
    )
    return parts.section(title, parts.plot(drawing, caption))


def _delay(run: Run) -> str:
    title = "How long it lasts"
    if not run.summary.get("delay_curve"):
        return parts.absent(title, "This run measured no success against delay in this task.")
    drawing = svg(lambda ax, theme: plots.delay(ax, theme, run), 5.2, 3.2, words.delay_alt(run))
    return parts.section(title, parts.plot(drawing, f"Bands: Wilson 95 % intervals. {words.chance(run)}"))


def _learning(run: Run) -> str:
    title = "Learning"
    if not plots.loss_curves(run):
        return parts.absent(title, "This run logged no training metrics.")
    drawing = svg(lambda ax, theme: plots.learning(ax, theme, run), 5.2, 3.2, words.learning_alt(run))
    rate = run.summary.get("frames_per_second_train")
    caption = ["Faint: as logged. Bold: smoothed in the logarithm."]
    caption += [f"{spent}." for spent in [words.training_time(run)] if spent]
    caption += [f"{rate:,.0f} frames a second."] if isinstance(rate, int | float) else []
    return parts.section(title, parts.plot(drawing, " ".join(caption)))


def _drift(run: Run) -> str:
    title = "When memory changes"
    if not plots.drift_bands(run):
        return parts.absent(title, "No evaluated policy has a memory that moves, or its drift was not recorded.")
    drawing = svg(lambda ax, theme: plots.drift(ax, theme, run), 5.2, 3.2, words.drift_alt(run))
    caption = "Cosine distance between the memory of one tick and the next: median and quartiles over episodes."
    return parts.section(title, parts.plot(drawing, caption))


def _attention(run: Run) -> str:
    if not run.attention:
        return parts.absent("Where it looks", "This run recorded no attention overlays.")
    films = {_seen(film): [film] for film in run.attention}
    kept = parts.fitting(films, ATTENTION_BYTES)
    clips = "".join(
        f'<figure class="clip">{parts.video(film["path"], f"Attention overlay: {name}")}'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, (film,) in films.items()
        if name in kept
    )
    note = (
        "What the policy saw, cameras in rows. Heat: mean attention over layers, heads and tokens, of the memory "
        "tokens (left, where it has any) and of the action slots (right), relative to its strongest in the film."
    )
    trailer = parts.left_out([name for name in films if name not in kept])
    return parts.section(
        "Where it looks", f'<p class="note">{note}</p>{parts.player()}<div class="clips">{clips}</div>{trailer}'
    )


def _seen(film: Json) -> str:
    """Whose look a film shows, and in which episode."""
    known = (label(film["policy"]), film["task"], f"seed {film['seed']}" if film["seed"] else "")
    return ", ".join(part for part in known if part)


def _episodes(run: Run) -> str:
    rows = words.episode_rows(run)
    if not rows:
        return parts.absent("Episodes and counters", "No per-episode evaluation files were found.")
    note = "Totals over episodes; the run fails where counters disagree. An error is never a failed episode."
    return parts.section("Episodes and counters", f'<p class="note">{note}</p>{parts.table(rows)}')


def _provenance(run: Run) -> str:
    shown = run.summary | {"training_time": words.training_time(run)}
    pairs = words.designs(run) + [pair for key in PROVENANCE if shown.get(key) for pair in parts.flat(key, shown[key])]
    if not pairs:
        return parts.absent("Provenance", "The summary names no commit, versions or seeds.")
    rows = "".join(
        f'<tr><th scope="row">{escape(key.replace("_", " "))}</th><td class="wrap">{escape(value)}</td></tr>'
        for key, value in pairs
    )
    return parts.section("Provenance", f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>')


def _repeat(run: Run) -> str:
    commit = str(run.summary.get("commit") or "unknown")
    sha = commit.removesuffix("-dirty")
    commands = [f"git checkout {sha}"] if sha != "unknown" else []
    commands += [run.summary["command"]] if run.summary.get("command") else []
    if not commands:
        return ""
    changed = '<p class="note">Made with changes that were not committed.</p>' if sha != commit else ""
    return parts.section("How to repeat it", f"<pre><code>{escape(chr(10).join(commands))}</code></pre>{changed}")
