"""The page's style sheet: light and dark, for screens of all widths and for print."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1d232a; --faint: #5b6672; --line: #d9dee4; --panel: #f5f7f9;
  --good: #1d7a46; --bad: #b3261e; --warn: #8a5a00; --link: #1f5fbf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e3e7ec; --faint: #9aa5b1; --line: #313943; --panel: #1c2229;
    --good: #5fd08f; --bad: #ff8a80; --warn: #f0b94f; --link: #82b1ff;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 0; }
h3 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--faint);
  margin: 1.4rem 0 .4rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--panel);
  padding: .05em .3em; }
pre { overflow-x: auto; background: var(--panel); padding: .6rem .8rem; font-size: .85rem; }
pre code { padding: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.name { white-space: nowrap; }
section.claim { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1.5rem; }
header.claim { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: baseline; }
.source, .aside { color: var(--faint); font-size: .93rem; }
.chip {
  display: inline-block; white-space: nowrap; border: 1px solid currentColor; border-radius: 1em;
  font-size: .8rem; line-height: 1.4; padding: 0 .6em;
}
.true { color: var(--good); } .fix { color: var(--warn); } .false { color: var(--bad); }
.empirical { color: var(--link); }
.yes { color: var(--good); } .no { color: var(--bad); font-weight: 700; } .weak { color: var(--warn);
  font-weight: 700; }
.counts { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; padding: 0; margin: 1rem 0; }
.statement { background: var(--panel); border-left: 3px solid var(--line); padding: .5rem 1rem;
  margin: .3rem 0; }
.statement.wrong { border-color: var(--bad); } .statement.right { border-color: var(--good); }
.statement p { margin: .3rem 0 0; }
.formula { overflow-x: auto; overflow-y: hidden; padding: .3rem 0; }
math { font-size: 1.06em; }
math[display="block"] { margin: .4rem 0; }
dl.instance { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: .4rem 0;
  align-items: center; }
dl.instance dd { margin: 0; padding: .15rem 0; overflow-x: auto; overflow-y: hidden; }
figure { margin: 1rem 0; overflow-x: auto; }
figcaption { font-size: .93rem; font-weight: 600; margin-bottom: .3rem; }
figure svg { max-width: 100%; height: auto; }
details > summary { cursor: pointer; color: var(--faint); }
nav.steps { font-size: .85rem; margin-left: auto; }
@media print { nav.steps { display: none; } section.claim { break-inside: avoid-page; } }
"""
