// Pointer, wheel and keys on the view.
function wavemeshPointer(view) {
  const { state, stage } = view;
  function listen() {
    const { canvas } = view;
    const touches = new Map();
    let moved = null;
    const turn = (dx, dy) => { state.az -= dx * .5; state.el = Math.max(-90, Math.min(90, state.el + dy * .5)); view.move(); };
    const pan = (dx, dy) => { state.pan[0] += 2 * dx / stage.clientWidth; state.pan[1] -= 2 * dy / stage.clientHeight; view.move(); };
    const zoom = k => { state.zoom = Math.max(.2, Math.min(40, state.zoom * k)); view.move(); };
    const point = () => {
      if (view.canvas !== canvas) return;
      if (view.busy()) return requestAnimationFrame(point); // waits for the frame under the pointer
      canvas.asked = false;
      if (touches.size) return;
      const hit = view.pickAt(...moved), had = view.hover;
      view.hover = hit && { hit, x: moved[0], y: moved[1] };
      if (had || view.hover) view.reword();
    };
    canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); touches.set(e.pointerId, [e.clientX, e.clientY]); canvas.focus({ preventScroll: true }); if (view.hover) { view.hover = null; view.reword(); } e.preventDefault(); });
    const leave = e => touches.delete(e.pointerId);
    canvas.addEventListener('pointerup', leave);
    canvas.addEventListener('pointercancel', leave);
    canvas.addEventListener('pointerleave', () => { if (view.hover) { view.hover = null; view.reword(); } });
    canvas.addEventListener('pointermove', e => {
      const last = touches.get(e.pointerId);
      if (!last) {
        moved = [e.offsetX, e.offsetY];
        if (!canvas.asked) { canvas.asked = true; requestAnimationFrame(point); }
        return;
      }
      const [dx, dy] = [e.clientX - last[0], e.clientY - last[1]];
      if (touches.size === 2) {
        const other = [...touches].find(([id]) => id !== e.pointerId)[1];
        const before = Math.hypot(last[0] - other[0], last[1] - other[1]), now = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
        zoom(now / Math.max(1, before));
        pan(dx / 2, dy / 2);
      } else if (e.buttons & 6 || e.shiftKey) pan(dx, dy);
      else turn(dx, dy);
      touches.set(e.pointerId, [e.clientX, e.clientY]);
    });
    canvas.addEventListener('contextmenu', e => e.preventDefault());
    // The wheel zooms after a click on the view. Before that, it scrolls the notebook.
    canvas.addEventListener('wheel', e => { if (document.activeElement === canvas || e.ctrlKey) { e.preventDefault(); zoom(Math.exp(-e.deltaY * .0015)); } }, { passive: false });
    canvas.addEventListener('dblclick', view.reset);
    canvas.addEventListener('keydown', e => {
      const move = e.shiftKey ? pan : turn, keys = {
        ArrowLeft: () => move(-16, 0), ArrowRight: () => move(16, 0), ArrowUp: () => move(0, -16), ArrowDown: () => move(0, 16),
        '+': () => zoom(1.2), '=': () => zoom(1.2), '-': () => zoom(1 / 1.2), r: view.reset, f: view.fullScreen, s: view.save,
        o: () => { state.outline = !state.outline; view.change(); }, ' ': view.play,
      };
      if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { keys[e.key](); e.preventDefault(); e.stopPropagation(); }
    });
    canvas.addEventListener('webglcontextlost', e => { e.preventDefault(); if (view.gl) view.release(true); });
  }
  return { listen };
}
