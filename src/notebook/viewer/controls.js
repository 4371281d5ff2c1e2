// The buttons, lists and sliders under the view.
function wavemeshControls(view) {
  const { meta, state, ramps, details, player, mesh, points, voxels, names } = view;
  const all = [];
  let box = null;
  const group = name => { const l = wavemeshElement('label', 'display:inline-flex;align-items:center;gap:4px;white-space:nowrap', box); wavemeshElement('span', 'opacity:.75', l, { textContent: name }); return l; };
  const slider = (name, min, max, get, set, steps, within) => {
    const i = wavemeshElement('input', 'width:80px;margin:0', within || group(name), { type: 'range', min, max, step: steps || (max - min) / 200 });
    i.setAttribute('aria-label', name);
    i.oninput = () => { set(+i.value); view.handled(); view.ask(); };
    all.push(() => { i.value = get(); });
    return i;
  };
  const button = (text, hint, act) => { const b = wavemeshElement('button', 'font:inherit;padding:1px 8px;border:1px solid rgba(127,127,127,.5);border-radius:4px;background:transparent;color:inherit;cursor:pointer', box, { textContent: text, title: hint, type: 'button' }); b.onclick = act; return b; };
  const select = (name, options, get, set) => {
    const s = wavemeshElement('select', 'font:inherit;color:inherit;background:transparent', group(name));
    s.setAttribute('aria-label', name);
    options.forEach((o, i) => wavemeshElement('option', 'color:#222;background:#fff', s, { textContent: o, value: i }));
    s.onchange = () => set(+s.value);
    all.push(() => { s.value = get(); });
  };
  function sequence() {
    box = player;
    const b = button('play', 'space', view.play);
    b.style.minWidth = '5em';
    all.push(() => { b.textContent = state.playing ? 'pause' : 'play'; });
    slider('step', 0, view.frames.length - 1, () => state.frame, v => { state.playing = false; view.show(v); }, 1).style.width = '220px';
  }
  function buttons() {
    box = wavemeshRow(details);
    button('reset', 'first view (r, double click)', view.reset);
    button('full screen', 'f', view.fullScreen);
    button('save PNG', 's', view.save);
    button('light / dark', 'theme of the view', () => { state.dark = !view.dark(); view.change(); });
    if (!points) button(mesh ? 'wireframe' : 'outline', 'o', () => { state.outline = !state.outline; view.change(); });
    button('perspective', 'parallel or perspective', () => { state.ortho = !state.ortho; view.change(); });
  }
  function looks() {
    box = wavemeshRow(details);
    if (meta.channels.length > 1) select('channel', meta.channels, () => state.channel, i => { state.channel = i; state.low = null; state.threshold = [-Infinity, Infinity]; view.stale = true; sync(); view.change(); });
    if (meta.channels.length) {
      const maps = Object.keys(ramps);
      select('colours', maps, () => maps.indexOf(state.map), i => { state.map = maps[i]; view.loadRamp(); view.change(); });
    }
    if (!points) slider('opacity', .05, 1, () => state.alpha, v => { state.alpha = v; view.dirty = true; });
    if (points) slider('size', .5, 12, () => state.size, v => { state.size = v; view.dirty = true; });
    if (voxels) slider('size', .2, 1, () => state.size, v => { state.size = v; view.stale = true; });
    if (meta.channels.length && !mesh) {
      const range = () => meta.ranges[state.channel];
      const part = (v, side) => { const [l, h] = range(); return Number.isFinite(v) ? (v - l) / (h - l || 1) : side; };
      const at = t => { const [l, h] = range(); return l + t * (h - l); };
      const both = group('value');
      slider('value from', 0, 1, () => part(state.threshold[0], 0), t => { state.threshold[0] = t <= 0 ? -Infinity : at(t); cut(); }, 0, both);
      slider('value to', 0, 1, () => part(state.threshold[1], 1), t => { state.threshold[1] = t >= 1 ? Infinity : at(t); cut(); }, 0, both);
    }
  }
  function clips() {
    box = wavemeshRow(details);
    names.forEach((name, i) => {
      // With steps of a fraction of the box, rounding would stop the slider short of the end.
      const steps = voxels ? 1 : 'any';
      const both = group(name);
      slider(name + ' from', meta.low[i], meta.high[i], () => state.clip[i][0], v => { state.clip[i][0] = v; cut(); }, steps, both);
      slider(name + ' to', meta.low[i], meta.high[i], () => state.clip[i][1], v => { state.clip[i][1] = v; cut(); }, steps, both);
    });
  }
  function cut() { view.stale = view.stale || voxels; view.dirty = true; } // voxels are chosen here, meshes and points by the shaders
  function build() {
    if (player) sequence();
    buttons();
    looks();
    clips();
    sync();
  }
  const sync = () => all.forEach(f => f());
  return { controls: { build, sync } };
}
