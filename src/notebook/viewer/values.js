// The values of channels, the colour bar's ends, and numbers as text.
function wavemeshValues(view) {
  const { meta, state } = view;
  const channelOf = (f = view.frames[state.frame]) => f.channels[state.channel] || null;
  const valueOf = (c, q) => !c || q === 65535 ? NaN : c.low + q / 65534 * (c.high - c.low);
  function scaleOf() { // the colour bar's ends: the same for all frames, so that frames can be compared
    if (state.low !== null) return [state.low, state.high];
    let [low, high] = meta.ranges[state.channel] || [0, 1];
    if (low < 0 && Math.min(-low, high) >= .05 * Math.max(-low, high)) { high = Math.max(high, -low); low = -high; }
    return low < high ? [low, high] : [low - 0.5, low + 0.5];
  }
  return { channelOf, valueOf, scaleOf };
}

const wavemeshNumber = v => v === null ? '' : Number.isNaN(v) ? 'NaN' : Number.isInteger(v) ? String(v) : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(2) : String(+v.toPrecision(4));

// About n round numbers from low to high.
function wavemeshTicks(low, high, n) {
  const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough)), s = [1, 2, 5, 10].find(m => m * power >= rough * .999) * power, out = [];
  for (let k = Math.ceil(low / s - 1e-6); k <= high / s + 1e-6; k++) out.push(k * s);
  return out;
}
