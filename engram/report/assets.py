"""Style and script of the page, inlined so that the report stays one file."""

CSS = """
:root { color-scheme: light dark; --ink:#1c1f24; --muted:#5f6873; --grid:#d9dde2; --paper:#ffffff; --panel:#f6f7f9;
  --good:#0f7a5c; --bad:#b3441e; --accent:#2b7fc4; }
@media (prefers-color-scheme: dark) { :root { --ink:#e8eaed; --muted:#9aa3ae; --grid:#343a43; --paper:#14171b;
  --panel:#1c2026; --good:#46c39b; --bad:#f0895e; --accent:#5aa5e3; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--paper); color:var(--ink); font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", sans-serif; -webkit-text-size-adjust:100%; }
main { max-width:1080px; margin:0 auto; padding:48px 24px 80px; }
h1 { font-size:clamp(1.9rem, 4.5vw, 2.9rem); line-height:1.1; letter-spacing:-.02em; margin:0 0 16px; font-weight:680; }
h2 { font-size:1.15rem; margin:0 0 4px; font-weight:640; letter-spacing:-.005em; }
p { margin:0 0 12px; max-width:72ch; }
.eyebrow { color:var(--muted); font-size:.85rem; margin:0 0 10px; }
.lead { font-size:1.125rem; max-width:68ch; }
.note, figcaption { color:var(--muted); font-size:.9rem; }
section { margin-top:44px; }
.two { display:grid; grid-template-columns:repeat(2, minmax(0,1fr)); gap:44px 40px; }
.two section { margin-top:0; }
.two + section, section + .two { margin-top:44px; }
figure { margin:8px 0 0; }
figure > svg { display:block; width:100%; height:auto; overflow:visible; }
figure > svg text { font-family:inherit !important; font-variant-numeric:tabular-nums; }
.tiles { display:flex; flex-wrap:wrap; gap:1px; background:var(--grid); border:1px solid var(--grid); border-radius:8px;
  overflow:hidden; margin-top:28px; }
.tiles div { flex:1 1 160px; background:var(--paper); padding:13px 18px 14px; border-top:3px solid transparent; }
.tiles b { display:block; font-size:1.7rem; line-height:1.2; font-weight:640; font-variant-numeric:tabular-nums; }
.tiles span { color:var(--muted); font-size:.85rem; display:block; line-height:1.35; }
.pairs { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%,440px),1fr));
  gap:24px 40px; margin-top:14px; }
.pair { margin:0; } .pair > div { display:grid; grid-template-columns:1fr 1fr; gap:8px; }
.clips { display:grid; grid-template-columns:repeat(auto-fill, minmax(180px,1fr)); gap:16px; margin-top:14px; }
.pair.single > div { grid-template-columns:1fr; }
.pair p { margin:0 0 6px; font-size:.9rem; color:var(--muted); }
.clip { margin:0; } .clip video { width:100%; display:block; border-radius:6px; 
  background:var(--panel); image-rendering:pixelated; }
.clip figcaption { margin-top:4px; line-height:1.35; } .clip strong { color:var(--ink); font-weight:600; }
.good { color:var(--good); } .bad { color:var(--bad); }
.player { display:flex; gap:8px; align-items:center; margin-top:12px; }
.player button { font:inherit; font-size:.9rem; color:var(--ink); background:var(--panel); border:1px solid var(--grid);
  border-radius:6px; padding:4px 14px; cursor:pointer; min-width:5.2em; }
.player button:hover { border-color:var(--muted); }
.player input { flex:1; min-width:80px; accent-color:var(--accent); }
.player output { color:var(--muted); font-size:.85rem; min-width:3.6em; text-align:right;
  font-variant-numeric:tabular-nums; }
:focus-visible { outline:2px solid var(--accent); outline-offset:2px; }
.scroll { overflow-x:auto; margin-top:8px; }
table { border-collapse:collapse; font-size:.88rem; width:100%; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:6px 18px 6px 0; border-bottom:1px solid var(--grid); white-space:nowrap;
  vertical-align:top; }
th { font-weight:600; color:var(--muted); } td.n, th.n { text-align:right; }
td.wrap { white-space:normal; overflow-wrap:anywhere; }
th[scope=row] { width:14em; }
pre { background:var(--panel); border-radius:8px; padding:14px 18px; overflow-x:auto; font-size:.88rem;
  line-height:1.6; margin:8px 0 0; }
code, pre { font-family:ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (max-width:760px) { main { padding:28px 16px 56px; } .two { grid-template-columns:minmax(0,1fr); } }
@media print { .player { display:none; } section { break-inside:avoid; } }
"""

# One control bar drives all videos of its section. The longest is the clock; shorter ones hold their last frame,
# which shows the choice, until all start again.
JS = """
for (const bar of document.querySelectorAll('.player')) {
  const videos = [...bar.parentElement.querySelectorAll('video')];
  const [toggle, restart] = bar.querySelectorAll('button');
  const slider = bar.querySelector('input'), clock = bar.querySelector('output');
  const longest = () => videos.reduce((a, b) => (b.duration || 0) > (a.duration || 0) ? b : a);
  const seek = seconds => videos.forEach(v => { v.currentTime = Math.min(seconds, v.duration || 0); });
  let playing = false;
  const play = on => {
    playing = on;
    toggle.textContent = on ? 'Pause' : 'Play';
    videos.forEach(v => { if (!on) v.pause(); else if (!v.ended) v.play().catch(() => {}); });
  };
  const again = () => { seek(0); play(true); };
  toggle.onclick = () => { if (!playing && longest().ended) again(); else play(!playing); };
  restart.onclick = again;
  slider.oninput = () => { play(false); seek(slider.value / 1000 * longest().duration); };
  const frame = () => {
    const v = longest();
    if (v.duration) {
      if (playing) slider.value = 1000 * v.currentTime / v.duration;
      clock.textContent = v.currentTime.toFixed(1) + ' s';
      if (playing && v.ended) { playing = false; setTimeout(() => { if (v.ended) again(); }, 1200); }
    }
    requestAnimationFrame(frame);
  };
  frame();
  const ready = v => v.readyState >= 3 || new Promise(done => v.addEventListener('canplay', done, {once: true}));
  if (!matchMedia('(prefers-reduced-motion: reduce)').matches) Promise.all(videos.map(ready)).then(again);
}
"""
