// Plays the frames of a sequence.
function wavemeshPlayer(view) {
  const { meta, state } = view;
  let due = 0;
  function play() { if (view.frames.length > 1) { state.playing = !state.playing; due = 0; view.ask(); view.controls.sync(); } }
  function step() {
    const now = performance.now();
    if (now < due) return;
    due = now + 1000 / meta.fps;
    show((state.frame + 1) % view.frames.length);
  }
  function show(frame) { state.frame = frame; view.stale = true; view.dirty = true; view.controls.sync(); view.ask(); }
  return { play, step, show };
}
