// Draws frames when something has changed, and no faster than the machine can.
function wavemeshFrames(view) {
  const { state, stage, mesh, voxels } = view;
  // flight: the frame that the graphics card is drawing. coarse: how coarse frames must be to keep up while the view turns or sliders move.
  let flight = null, coarse = { turn: 0, build: 0 }, moving = 0, rough = false, raf = 0, drawn = 0;
  function draw(full) {
    const { gl, canvas, overlay } = view;
    if (!gl || gl.isContextLost()) return;
    if (state.playing) view.step();
    const begun = performance.now(), kind = view.stale || voxels && !view.visible.levels[0] ? 'build' : 'turn', k = full || mesh || !moving ? 0 : coarse[kind];
    if (view.stale) view.rebuild();
    const ratio = Math.min(2, window.devicePixelRatio || 1), w = Math.round(stage.clientWidth * ratio), h = Math.round(stage.clientHeight * ratio);
    if (!w || !h) return; // the stage is not on the page
    if (canvas.width !== w || canvas.height !== h) { for (const c of [canvas, overlay]) { c.width = w; c.height = h; } view.dirty = true; }
    if (state.playing) ask();
    const cam = view.camera(), paper = view.colors().paper;
    if (!view.dirty) { if (view.worded) view.write(cam, ratio); return; }
    view.dirty = view.programs.pick.fresh = false;
    const level = view.ready(cam, k, state.alpha < 1);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, w, h);
    gl.clearColor(...paper, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    view.drawBox(cam);
    if (state.alpha < 1) { gl.enable(gl.BLEND); gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA); }
    view.scene(cam, level, false);
    gl.disable(gl.BLEND);
    view.write(cam, ratio);
    if (!full) {
      flight = { sync: gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0), begun, kind, k, first: !drawn };
      gl.flush();
      setTimeout(land, 4);
    }
    rough = k > 0;
    drawn++;
  }
  // A frame starts only after the last one is complete. On a slow machine, frames would otherwise queue up and lag behind the pointer.
  function land() {
    const { gl } = view;
    if (!gl || !flight || gl.isContextLost()) return;
    if (gl.getSyncParameter(flight.sync, gl.SYNC_STATUS) !== gl.SIGNALED) return setTimeout(land, 4);
    const { kind, k, first } = flight, took = performance.now() - flight.begun;
    gl.deleteSync(flight.sync);
    flight = null;
    if (!mesh && !first && !document.hidden) {
      if (took > 80) coarse[kind] = Math.min(3, Math.max(coarse[kind], k + 1));
      else if (moving && took < 15 && k && k === coarse[kind]) coarse[kind]--;
    }
    if (view.dirty || view.worded || state.playing) ask();
  }
  function handled() { // the user is moving something: coarse frames are enough until 200 ms without a move
    clearTimeout(moving);
    moving = setTimeout(() => { moving = 0; if (rough) change(); }, 200);
  }
  const ask = () => { if (view.gl && !raf) raf = requestAnimationFrame(() => { raf = 0; if (!flight) draw(); }); };
  const change = () => { view.dirty = true; ask(); };
  const reword = () => { view.worded = true; ask(); };
  const move = () => { handled(); change(); };
  const busy = () => !!(view.dirty || flight || moving);
  const restart = () => { flight = null; view.dirty = true; }; // in a new context
  return { draw, ask, handled, change, reword, move, busy, restart, drawn: () => drawn };
}
