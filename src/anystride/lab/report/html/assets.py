"""The page's style and its script: no other file, no network."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #666; --line: #d8d8d8; --paper: #fff; --tint: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #a5a5a5; --line: #444; --paper: #16181b; --tint: #22262b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { margin-top: 3rem; border-top: 2px solid var(--line); padding-top: 1rem; }
h3 { margin-bottom: .3rem; }
.note { background: var(--tint); padding: .6rem .8rem; border-left: 4px solid #E69F00; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th[scope=row] { white-space: normal; min-width: 6.5rem; max-width: 16rem; position: sticky; left: 0;
  background: var(--paper); }
caption { max-width: 44rem; }
@media (max-width: 40rem) { th[scope=row] { max-width: 7rem; } caption { max-width: calc(100vw - 2rem); } }
.known, .soft { color: var(--soft); font-size: .85em; display: block; }
.best { font-weight: 700; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figcaption { font-size: .85rem; color: var(--soft); }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 11px; }
svg .axis { stroke: var(--soft); } svg .grid { stroke: var(--line); }
[data-tip]:hover, [data-tip]:focus { stroke: var(--ink); stroke-width: 2; outline: none; }
.key span { white-space: nowrap; margin-right: 1rem; } .key i { display: inline-block; width: .8em; height: .8em; }
#tip { position: fixed; pointer-events: none; background: var(--ink); color: var(--paper); padding: .25rem .5rem;
  border-radius: 4px; font-size: .85rem; max-width: 80vw; display: none; white-space: pre-line; }
button.save { font: inherit; font-size: .75rem; color: var(--soft); background: none; border: 1px solid var(--line);
  border-radius: 4px; padding: 0 .4rem; cursor: pointer; }
@media print { details, button.save { display: none; } figure, tr { break-inside: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } .wide { overflow: visible; } table { font-size: .65rem; }
  th, td { padding: .15rem .35rem; white-space: normal; } }
"""

SCRIPT = """
const tip = document.getElementById('tip');
function show(event) {
  const at = event.target.closest('[data-tip]');
  if (!at) { tip.style.display = 'none'; return; }
  tip.textContent = at.dataset.tip;
  tip.style.display = 'block';
  const box = at.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(box.x + 8, innerWidth - own.width - 4)) + 'px';
  tip.style.top = Math.max(4, box.y - own.height - 6) + 'px';
}
for (const kind of ['mouseover', 'focusin', 'click']) document.addEventListener(kind, show);
document.addEventListener('focusout', () => { tip.style.display = 'none'; });
document.querySelectorAll('figure').forEach((figure, number) => {
  const drawn = figure.querySelector('svg');
  if (!drawn) return;
  const button = document.createElement('button');
  button.className = 'save';
  button.textContent = 'save as SVG';
  button.addEventListener('click', () => {
    const copy = drawn.cloneNode(true), style = document.createElementNS('http://www.w3.org/2000/svg', 'style');
    style.textContent = 'text{font:11px sans-serif;fill:#1b1b1b}.axis{stroke:#666}.grid{stroke:#d8d8d8}';
    copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    copy.prepend(style);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([copy.outerHTML], {type: 'image/svg+xml'}));
    link.download = 'figure-' + (number + 1) + '.svg';
    link.click();
    URL.revokeObjectURL(link.href);
  });
  figure.append(button);
});
const root = document.documentElement;
root.dataset.overflow = root.scrollWidth > innerWidth;
root.dataset.ready = document.querySelectorAll('[data-tip]').length;
"""
