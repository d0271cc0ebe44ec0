"""Style sheet of the page: light and dark, and narrow enough for a phone."""

CSS = """
:root { color-scheme: light dark; --text: #1b1f24; --faint: #59636e; --line: #d1d9e0; --page: #ffffff; --bar: #2b83ba;
  --warn: #9a3412; --box: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --faint: #9aa6b2; --line: #3a424b; --page: #131720; --bar: #5aa9d6; --warn: #ffa657;
    --box: #1c222c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 0.25rem; }
p { margin: 0.5rem 0; }
.faint, figcaption, th { color: var(--faint); }
.warning { color: var(--warn); border-left: 0.25rem solid var(--warn); padding-left: 0.75rem; }
table { border-collapse: collapse; width: 100%; max-width: 45rem; }
th, td { padding: 0.2rem 0.75rem 0.2rem 0; text-align: left; vertical-align: top; font-weight: normal;
  border-bottom: 1px solid var(--line); }
th { width: 45%; }
td { font-variant-numeric: tabular-nums; }
tr.total th, tr.total td { font-weight: bold; color: var(--text); border-bottom: 0; }
figure { margin: 0; }
img { max-width: 100%; height: auto; }
svg { width: 100%; max-width: 32rem; height: auto; display: block; fill: var(--bar); }
svg line { stroke: var(--faint); }
svg text { fill: var(--faint); font-size: 14px; }
.cells { display: flex; flex-wrap: wrap; gap: 0.5rem; margin: 0.5rem 0; }
.cells figure { width: 6.5rem; background: var(--box); border-radius: 0.25rem; padding: 0.25rem; }
.cells img { display: block; width: 100%; background: #000; }
.cells figcaption { font-size: 0.75rem; line-height: 1.25; white-space: pre-line; padding-top: 0.25rem; }
"""
