// Colours: light or dark as the page around the view, and the colour map as 256 colours.
function wavemeshColors(view) {
  const { root, meta, state, ramps } = view;
  function dark() {
    if (state.dark !== null) return state.dark;
    for (let e = root.parentElement; e; e = e.parentElement) {
      const m = getComputedStyle(e).backgroundColor.match(/[\d.]+/g);
      if (m && (m.length < 4 || +m[3] > .5)) return (+m[0] * 299 + +m[1] * 587 + +m[2] * 114) / 1000 < 128;
    }
    return matchMedia('(prefers-color-scheme: dark)').matches;
  }
  const colors = () => dark() ? { paper: [.066, .075, .09], ink: '#d7dbe2' } : { paper: [1, 1, 1], ink: '#282c34' };
  function makeRamp() {
    const stops = ramps[state.map], bytes = new Uint8Array(1024);
    if (meta.palette) meta.palette.forEach((color, i) => bytes.set([...color, 255], 4 * i));
    else for (let i = 0; i < 256; i++) {
      const t = i / 255 * 16, k = Math.min(15, t | 0), p = t - k;
      for (let c = 0; c < 3; c++) {
        const v = s => parseInt(stops.substr(s * 6 + c * 2, 2), 16);
        bytes[4 * i + c] = Math.round(v(k) + (v(k + 1) - v(k)) * p);
      }
      bytes[4 * i + 3] = 255;
    }
    state.ramp = bytes;
  }
  return { dark, colors, makeRamp };
}
