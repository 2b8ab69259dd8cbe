// Draws portraits of six styles: `node avatars.mjs NUMBER OUT`, with NUMBER portraits a style. `python -m ops.avatars OUT
// FOLDER` packs them for training. Needs @dicebear/core 9.4.3, @dicebear/collection 9.4.3 and @resvg/resvg-js.
// The same seeds give the same portraits, so that a larger output begins with a smaller one.
import { createAvatar } from '@dicebear/core';
import * as col from '@dicebear/collection';
import { Resvg } from '@resvg/resvg-js';
import fs from 'node:fs';
const STYLES = ['personas', 'micah', 'bigSmile', 'toonHead', 'adventurer', 'lorelei'];
const BG = { ffffff: 'white', d1e8ff: 'light blue', ffe3cf: 'peach', d9f2d0: 'light green', fff3b0: 'light yellow', e6dcff: 'lavender' };
const N = +process.argv[2], S = 128, out = process.argv[3];
const rows = [];
for (const st of STYLES) {
  fs.mkdirSync(`${out}/${st}`, { recursive: true });
  const seen = new Set(); let k = 0, i = 0;
  while (k < N && i < 4 * N) {
    const seed = `oar-${st}-${i++}`;
    const bg = Object.keys(BG)[i % 6];
    const a = createAvatar(col[st], { seed, size: S, backgroundColor: [bg] });
    const j = a.toJson();
    const key = JSON.stringify([j.extra, bg]);
    if (seen.has(key)) continue;
    seen.add(key);
    const png = new Resvg(j.svg, { fitTo: { mode: 'width', value: S }, background: '#' + bg, font: { loadSystemFonts: false } }).render().asPng();
    fs.writeFileSync(`${out}/${st}/${st}-${String(k).padStart(5, '0')}.png`, png);
    rows.push({ file: `${st}/${st}-${String(k).padStart(5, '0')}`, style: st, seed, bg: BG[bg], extra: j.extra });
    k++;
  }
  console.log(st, k, 'of', i, JSON.stringify(rows.at(-1).extra));
}
fs.writeFileSync(`${out}/rows.json`, JSON.stringify(rows));
