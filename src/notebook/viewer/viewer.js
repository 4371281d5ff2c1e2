// WaveMesh's interactive viewer, in plain WebGL2 without dependencies or network. Each viewer's HTML contains all files of this folder.
// wavemeshViewer(root, meta, packed, ramps): `packed` is base64 of gzip of the binary described in payload.rs.
// The parts share `view`: constants, what is there now, and each other's functions.
function wavemeshViewer(root, meta, packed, ramps) {
  if (root.wavemesh) return;
  const mesh = meta.kind === 'mesh', points = meta.kind === 'points', voxels = !mesh && !points;
  const dims = meta.high.map((h, i) => h - meta.low[i]);
  const center = dims.map((d, i) => meta.low[i] + d / 2), radius = Math.hypot(...dims) / 2 || 1;
  const home = { az: meta.azimuth, el: meta.elevation, zoom: 1, pan: [0, 0] };
  const state = {
    ...home, pan: [0, 0], channel: 0, frame: meta.frames.length - 1, alpha: meta.alpha, size: meta.size, outline: meta.outline,
    map: meta.map, low: null, high: null, dark: null, ortho: !meta.perspective,
    clip: meta.low.map((l, i) => [l, meta.high[i]]), threshold: [-Infinity, Infinity], playing: false,
  };
  const view = {
    root, meta, ramps, state, home, mesh, points, voxels, dims, center, radius, names: ['x', 'y', 'z'], ...wavemeshPage(root, meta),
    frames: null, visible: null, hover: null, gl: null, canvas: null, overlay: null, programs: null,
    // What must be made again before it is shown. dirty: the picture; stale: the set of things in it; worded: the text over it.
    dirty: true, stale: true, worded: false,
  };
  for (const part of [wavemeshValues, wavemeshColors, wavemeshCamera, wavemeshShown, wavemeshCard, wavemeshScene, wavemeshPick, wavemeshBox, wavemeshOverlay,
    wavemeshFrames, wavemeshPlayer, wavemeshScreen, wavemeshPointer, wavemeshControls]) Object.assign(view, part(view));

  // The WebGL context is created when the view is visible, and released when it is not.
  const { stage, still } = view, active = window.wavemeshActive = window.wavemeshActive || [];
  let wanted = false;
  function start() {
    if (!view.openCard()) return false;
    view.listen();
    if (view.visible) for (const level of voxels ? view.visible.levels : [view.visible]) if (level) { level.uploaded = false; level.texture = null; }
    still.style.visibility = 'hidden';
    active.push(api);
    while (active.length > 8) active[0].release();
    view.restart();
    return true;
  }
  function release(lost) {
    const { gl } = view;
    if (!gl) return;
    if (!lost && root.isConnected && stage.clientWidth && stage.clientHeight) { still.src = view.snapshot().toDataURL('image/png'); still.style.cssText = 'position:absolute;inset:0;width:100%;height:100%'; }
    still.style.visibility = 'visible';
    const extension = gl.getExtension('WEBGL_lose_context');
    view.gl = null;
    if (extension && !lost) extension.loseContext();
    view.canvas.remove();
    view.overlay.remove();
    view.canvas = view.overlay = view.programs = null;
    state.playing = false;
    active.splice(active.indexOf(api), 1);
  }
  view.release = release;
  async function seen() {
    wanted = true;
    try {
      if (!view.frames) {
        if (packed === null) return;
        const data = packed;
        packed = null;
        view.frames = await wavemeshPayload(data, meta);
        view.controls.build();
      }
      if (wanted && !view.gl && start()) view.draw();
    } catch (error) { view.say('The view could not be started: ' + error.message); }
  }
  const api = root.wavemesh = {
    state, meta, camera: view.camera, project: p => view.project(view.camera(), p), pickAt: view.pickAt, snapshot: view.snapshot, drawn: view.drawn,
    start: seen, release: () => release(false), change: () => { view.stale = true; view.change(); },
    frame: () => view.frames[state.frame], visible: () => view.visible, canvas: () => view.canvas, hover: () => view.hover,
    isActive: () => !!view.gl, idle: () => !view.busy() && !view.stale && !view.worded,
  };
  new IntersectionObserver(entries => {
    for (const e of entries) if (e.isIntersecting) seen(); else { wanted = false; release(false); }
  }, { threshold: .02 }).observe(stage);
  stage.addEventListener('pointerdown', () => { if (!view.gl) seen(); });
  new ResizeObserver(() => view.change()).observe(stage);
}
